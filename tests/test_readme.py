"""Every Python snippet of README.md and docs/ runs as it stands, and says what is written below it.

A snippet that is headed with a file and a table is a row of that table: those after it run with the row in place.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from adaptive_rate_limiter import Limiter, cli

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCUMENTS = [README, *sorted((ROOT / "docs").rglob("*.md"))]
PACKAGE = ROOT / "src" / "adaptive_rate_limiter"
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TABLE = re.compile(r"\| `(\w+)` \| `([\w/]+\.py)` \|$", re.MULTILINE)


class Row(NamedTuple):
    file: str
    table: str
    text: str


class Snippet(NamedTuple):
    document: Path
    code: str
    said: str | None  # what it prints, where the document shows it
    rows: tuple[Row, ...]

    @property
    def name(self):
        return f"{self.document.name}: {self.code.strip().splitlines()[0][:40]}"


def blocks(document):
    return [(found[1], found[2]) for found in BLOCK.finditer(document.read_text(encoding="utf-8"))]


def snippets(document):
    found, rows = [], []
    told = blocks(document)
    for (head, text), (following, output) in zip(told, [*told[1:], ("", "")], strict=True):
        language, *place = head.split() or [""]
        if language == "python" and place:
            rows.append(Row(*place, text))
        elif language == "python":
            found.append(Snippet(document, text, output if following == "text" else None, tuple(rows)))
    return found


def rows(document):
    return [Row(*head.split()[1:], text) for head, text in blocks(document) if re.match(r"python \S", head)]


SNIPPETS = [snippet for document in DOCUMENTS for snippet in snippets(document)]
ROWS = [(document, rows(document)) for document in DOCUMENTS if rows(document)]


def _opened(text, row):
    head = re.findall(rf"^{row.table}\b.*[(\[{{]\n", text, re.MULTILINE)
    assert len(head) == 1, f"{row.file} has no table {row.table}"
    return text.replace(head[0], head[0] + row.text)


def put_in_place(rows, root):
    """A copy of the package, and of what `rows` concerns of the tests, with `rows` in their tables."""
    shutil.copytree(PACKAGE, root / "adaptive_rate_limiter", ignore=shutil.ignore_patterns("__pycache__"))
    for row in rows:
        in_tests = row.file.startswith("tests/")
        path = root / row.file if in_tests else root / "adaptive_rate_limiter" / row.file
        if in_tests and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / row.file, path)
        path.write_text(_opened(path.read_text(encoding="utf-8"), row), encoding="utf-8")
    return root


def run_here(snippet, capsys):
    exec(compile(snippet.code, str(snippet.document), "exec"), {"__name__": "snippet"})
    return capsys.readouterr().out


def run_with_rows(snippet, root):
    """In another process: tables are read when they are imported."""
    environment = {**os.environ, "PYTHONPATH": str(put_in_place(snippet.rows, root))}
    command = [sys.executable, "-W", "error", "-c", snippet.code]
    done = subprocess.run(
        command, check=True, env=environment, cwd=root, stdout=subprocess.PIPE, text=True, timeout=50
    )
    return done.stdout


@pytest.fixture
def own_loop():
    """LlamaIndex makes an event loop where a thread has none, and leaves it; the next asyncio.run drops it unclosed."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


@pytest.mark.usefixtures("own_loop")
@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.name)
def test_snippet_runs(snippet, capsys, tmp_path):
    said = run_with_rows(snippet, tmp_path) if snippet.rows else run_here(snippet, capsys)
    if snippet.said is not None:
        assert said == snippet.said


def test_the_first_snippet_is_not_refused(capsys):
    assert run_here(snippets(README)[0], capsys) == "30 answers, 0 refused\n"


def names_in(heading):
    """The names in the first column of a table of the README, and what follows them in the row."""
    section = README.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \| ([^|]*) \|", section, re.MULTILINE)


def test_the_table_of_options_has_each_of_them_with_its_default():
    told = dict(names_in("Options"))
    options = {
        name: option.default
        for name, option in inspect.signature(Limiter.__init__).parameters.items()
        if option.default is not option.empty
    }
    assert set(told) == set(options)
    for name, default in options.items():
        assert told[name].strip("`") == getattr(default, "__name__", repr(default)).replace("'", '"')


def test_the_table_of_commands_has_each_of_them():
    told = re.findall(
        r"^\| `[^`]*adaptive-rate-limiter (\w+)", README.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert told == [command.__name__.rpartition(".")[2] for command in cli.COMMANDS]


def test_every_extra_that_is_named_is_there():
    text = "".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    named = {extra for found in re.findall(r"\[([a-z,-]+)\]'", text) for extra in found.split(",")}
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = set(re.findall(r"^([a-z0-9-]+) = \[\"[a-z]", project, re.MULTILINE))
    assert named
    assert named <= extras


def test_links_to_files_and_headings_are_right():
    for document in [*DOCUMENTS, *ROOT.glob("*.md"), *ROOT.glob("integrations/*/README.md")]:
        for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
            if target.startswith("http"):
                continue
            file, _, heading = target.partition("#")
            path = document.parent / file if file else document
            assert path.exists(), f"{document.name}: {target}"
            if heading:
                headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
                assert heading in {
                    re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-") for name in headings
                }


@pytest.mark.parametrize(("document", "rows"), ROWS, ids=lambda value: getattr(value, "name", ""))
def test_rows_fit_into_their_tables(document, rows, tmp_path):
    put_in_place(rows, tmp_path)
    for row in rows:
        path = (
            tmp_path / row.file
            if row.file.startswith("tests/")
            else tmp_path / "adaptive_rate_limiter" / row.file
        )
        compile(path.read_text(encoding="utf-8"), str(path), "exec")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_tables_that_are_named_are_there(document):
    for table, file in TABLE.findall(document.read_text(encoding="utf-8")):
        assert re.search(rf"^{table}\b.*=", (PACKAGE / file).read_text(encoding="utf-8"), re.MULTILINE)
