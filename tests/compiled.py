"""`make compiled`: what an installed wheel has compiled is what runs, and passes the tests of what is not compiled."""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import PurePath

LEAST = ("core.bucket", "core.ledger", "core.told", "http.exchange", "options")
# What imports them; the other tests start servers, or see nothing of them.
TESTS = (
    "backends",
    "batch",
    "core",
    "http",
    "langchain",
    "limiter",
    "llama_index",
    "observability",
    "scheduler",
    "streaming",
)


def compiled() -> set[str]:
    """The modules of the distribution that are no Python, by their names within the package."""
    files = importlib.metadata.files("adaptive-rate-limiter") or []
    built = [PurePath(file) for file in files if file.name.endswith(EXTENSION_SUFFIXES[0])]
    return {
        ".".join((*file.parts[1:-1], file.name.partition(".")[0])) for file in built if len(file.parts) > 1
    }


def main() -> int:
    names = compiled()
    assert names.issuperset(LEAST), f"compiled are only: {sorted(names)}"
    for name in names:
        module = importlib.import_module(f"adaptive_rate_limiter.{name}")
        assert str(module.__file__).endswith(EXTENSION_SUFFIXES[0]), module.__file__
    print(f"{len(names)} modules are compiled", flush=True)
    paths = [f"tests/{name}" for name in TESTS]
    return subprocess.run([sys.executable, "-m", "pytest", *paths, *sys.argv[1:]], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
