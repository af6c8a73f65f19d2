"""Every Python snippet of the integration's README runs as it stands."""

import re
from pathlib import Path

import pytest
from tests.garbage import collect

ROOT = Path(__file__).parent.parent.parent
README = next(ROOT.glob("integrations/llama-index/README.md"), ROOT / "README.md")  # the latter in an sdist
SNIPPETS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.strip().splitlines()[-1][:40])
@pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecationWarning")  # of LlamaIndex's workflows
@pytest.mark.filterwarnings("ignore:.*aiosqlite:ResourceWarning")  # of the memory of its agents
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # of the SDKs' clients, which nobody closes
def test_snippet_runs(snippet, capsys):
    exec(compile(snippet, "README.md", "exec"), {"__name__": "readme"})
    collect()
    assert "1 refused" not in capsys.readouterr().out


def test_there_are_snippets():
    assert len(SNIPPETS) == 4
