"""The notebooks run top to bottom, without a key, and are committed with what they show."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from notebooks.__main__ import HERE, execute

ALL = sorted(HERE.glob("*.ipynb"))
AT_ONCE = 3  # a kernel works while it starts; afterwards it waits for limits most of the time


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def problems(path):
    """What goes wrong in a notebook: an error that ends it, or what is written to stderr."""
    try:
        outputs = [output for cell in code(execute(path, timeout=240)) for output in cell.outputs]
    except CellExecutionError as error:
        return [str(error)]
    return [output.text for output in outputs if output.get("name") == "stderr"]


@pytest.mark.timeout(300)
def test_they_run():
    """Each in a kernel of its own, side by side: as tests of their own they would wait one after another."""
    order = ALL[::-1]  # those that wait longest first
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip(order, pool.map(problems, order), strict=True))
    assert found == {path: [] for path in ALL}


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
