"""Every Python snippet of README.md runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.strip().splitlines()[0][:40])
def test_snippet_runs(snippet, capsys):
    exec(compile(snippet, "README.md", "exec"), {"__name__": "readme"})


def test_the_first_snippet_is_not_refused(capsys):
    exec(compile(SNIPPETS[0], "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out == "30 answers, 0 refused\n"
