"""`make compat`: tests with the oldest and with the newest releases of what the distributions declare.

`python -m tests.compat oldest` or `newest` does one of them. Each has an environment of its own, .compat-oldest and
.compat-newest, which is kept and brought up to date.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECTS = (".", "integrations/langchain", "integrations/llama-index")
NAMES = ("httpx", "httpx2", "openai", "anthropic", "langchain-core", "llama-index-core")
FOLDERS = (
    "tests/http", "tests/langchain", "tests/llama_index", "tests/sdks/test_sdks.py", "tests/test_one_budget.py",
)  # fmt: skip
TOOLS = (
    "pytest", "pytest-asyncio", "pytest-timeout", "pytest-xdist", "hypothesis", "uvicorn", "httptools", "rich",
    "pyyaml", "prometheus-client", "pydantic", "http-sf",
)  # fmt: skip
EXTRAS = ("langchain", "langchain-openai", "langchain-anthropic", "llama-index-embeddings-openai")
OF_THEIR_TIME = (  # what langchain-core's first release came with: later ones need a later core
    "langchain==1.0.0", "langchain-openai==1.0.0", "langchain-anthropic==1.0.0", "langgraph==1.0.0",
    "langgraph-prebuilt==1.0.0", "langgraph-checkpoint<4", "llama-index-embeddings-openai",
    "llama-index-llms-openai",
)  # fmt: skip
WITHOUT_DEPENDENCIES = ("llama-index-llms-openai", "llama-index-llms-openai-like", "langchain-tests")
"""They ask for an older openai or vcrpy than is the newest, and work with it."""


def declared() -> dict[str, str]:
    """Each name's requirement, as the distributions declare it: `>=1.0,<2`."""
    found = {}
    for project in PROJECTS:
        text = (ROOT / project / "pyproject.toml").read_text(encoding="utf-8")
        found |= dict(re.findall(r'"([a-z0-9-]+)(>=[^"]+)"', text))
    return {name: found[name] for name in NAMES}


def oldest() -> list[list[str]]:
    """Arguments of each `pip install`."""
    lower = [f"{name}=={bounds[2:].partition(',')[0]}" for name, bounds in declared().items()]
    return [[*lower, *OF_THEIR_TIME, *TOOLS]]


def newest() -> list[list[str]]:
    wanted = [name + bounds for name, bounds in declared().items()]
    return [
        ["--upgrade", *wanted, *EXTRAS, *TOOLS, "vcrpy"],
        ["--upgrade", "--no-deps", *WITHOUT_DEPENDENCIES],
    ]


RELEASES = {"oldest": oldest, "newest": newest}


def run(which: str) -> int:
    """Build the environment and run the tests in it; pytest's exit code."""
    place = ROOT / f".compat-{which}"
    python = place / "bin" / "python"
    if not python.exists():
        venv.create(place, with_pip=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    ours = [argument for project in PROJECTS for argument in ("-e", str(ROOT / project))]
    for arguments in (*RELEASES[which](), ["--no-deps", *ours]):
        subprocess.run([*install, *arguments], check=True, cwd=ROOT)
    listed = [
        f"from importlib.metadata import version as v; print({which!r}, *(n + ' ' + v(n) for n in {NAMES!r}))"
    ]
    subprocess.run([python, "-c", *listed], check=True)
    # Warnings of other releases are theirs.
    tests = [
        python,
        "-m",
        "pytest",
        "-n",
        "auto",
        "-W",
        "default",
        "-p",
        "no:cacheprovider",
        "--disable-warnings",
    ]
    return subprocess.run(
        [*tests, *FOLDERS], check=False, cwd=ROOT, env={**os.environ, "COMPAT": which}
    ).returncode


if __name__ == "__main__":
    failed = [which for which in sys.argv[1:] or RELEASES if run(which)]
    sys.exit(f"failed with the {' and the '.join(failed)} releases" if failed else 0)
