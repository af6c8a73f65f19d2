"""The notebooks run top to bottom, without a key, and are committed with what they show."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from notebooks.__main__ import HERE, execute

ALL = sorted(HERE.glob("*.ipynb"))
AT_ONCE = 3  # a kernel works while it starts; afterwards it waits for limits most of the time


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def executed(request):
    """Every notebook that a test asks for, by its path: each has a kernel of its own, and they run side by side."""
    asked = {
        item.callspec.params["path"] for item in request.session.items if "executed" in item.fixturenames
    }
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {path: pool.submit(execute, path, timeout=240) for path in sorted(asked)}


@pytest.mark.timeout(300)
@pytest.mark.xdist_group("notebooks")  # one process waits for them all
@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_it_runs(path, executed):
    outputs = [output for cell in code(executed[path].result()) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_it_is_committed_with_what_it_shows(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in code(notebook)]
    assert counts == list(range(1, len(counts) + 1))  # in one go, top to bottom
    assert any(cell.outputs for cell in code(notebook))
    assert not [output for cell in code(notebook) for output in cell.outputs if output.output_type == "error"]


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_it_knows_nothing_of_the_machine_that_ran_it(path):
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r"/(?:home|root|Users|work|tmp)/\S+", text)
    assert "nest_asyncio" not in text
    assert len(text) < 1_000_000


def test_the_tests_know_the_notebooks():
    assert len(ALL) == 6
    assert Path("notebooks") == HERE.relative_to(Path(__file__).parents[2])
