"""A user's own code that uses every public name passes pyright at its strictest (and mypy, by `make check`)."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import walk_packages

import pytest

import adaptive_rate_limiter

SAMPLES = sorted((Path(__file__).parent / "typing").glob("*.py"))
INTEGRATIONS = ("langchain_adaptive_rate_limiter", "llama_index.llms.adaptive_rate_limiter")
OF_THE_COMMAND = "adaptive_rate_limiter.cli"
PLAIN = [f"adaptive_rate_limiter.{name}" for name in ("exceptions", "protocols", "types")]


def public_modules():
    packages = walk_packages(adaptive_rate_limiter.__path__, "adaptive_rate_limiter.")
    names = [found.name for found in packages if found.ispkg and not found.name.startswith(OF_THE_COMMAND)]
    return [
        name
        for name in ["adaptive_rate_limiter", *names, *PLAIN, *INTEGRATIONS]
        if hasattr(import_module(name), "__all__")
    ]


def used(sample):
    """The objects that a sample has imported from us and then uses."""
    tree = ast.parse(sample.read_text(encoding="utf-8"))
    loaded = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules.update({alias.asname or alias.name: alias.name for alias in node.names})
        elif isinstance(node, ast.ImportFrom) and "adaptive_rate_limiter" in node.module:
            for alias in node.names:
                if alias.name in loaded:
                    yield getattr(import_module(node.module), alias.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = modules.get(node.value.id, "")
            if "adaptive_rate_limiter" in module:
                yield getattr(import_module(module), node.attr)


@pytest.mark.parametrize("module", public_modules())
def test_every_public_name_is_used(module):
    seen = {id(value) for sample in SAMPLES for value in used(sample)}
    public = import_module(module).__all__
    missing = [name for name in public if id(getattr(import_module(module), name)) not in seen]
    assert public
    assert not missing


def test_what_is_public_is_found():
    assert {"adaptive_rate_limiter", "adaptive_rate_limiter.testing", *INTEGRATIONS} <= {*public_modules()}


def test_pyright_at_its_strictest(tmp_path):
    """In a folder of the user's own, where only what is installed is known."""
    for sample in SAMPLES:
        shutil.copy(sample, tmp_path)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict"}))
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run(command, check=False, cwd=tmp_path, stdout=subprocess.PIPE, text=True, timeout=55)
    told = json.loads(done.stdout)
    assert [f"{one['file']}: {one['message']}" for one in told["generalDiagnostics"]] == []
    assert told["summary"]["filesAnalyzed"] == len(SAMPLES)


@pytest.mark.parametrize("package", ["adaptive_rate_limiter", *INTEGRATIONS])
def test_each_distribution_is_marked_as_typed(package):
    assert (Path(find_spec(package).origin).parent / "py.typed").is_file()
