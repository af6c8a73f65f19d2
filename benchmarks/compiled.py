"""The interpreter that has the compiled wheel, where `make compiled` or `make bench` has made it."""

from __future__ import annotations

from pathlib import Path

_python = Path(__file__).parent.parent / ".venv-compiled" / "bin" / "python"

PYTHON = str(_python) if _python.exists() else None
MISSING = "The compiled wheel was not measured; `make compiled` makes it where there is a C compiler."
