"""The snippets of published.txt, as they stand there: they are what users of `submit_request` have written."""

import re
from pathlib import Path

TEXT = Path(__file__).with_name("published.txt").read_text(encoding="utf-8")
SNIPPETS = dict(re.findall(r"^# ([^\n]+)\n\n```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE))


def run(name, **known):
    """The names that a snippet leaves behind; `known` are those that it leaves to its reader."""
    names = {"__name__": "snippet", **known}
    exec(compile(SNIPPETS[name], f"published.txt: {name}", "exec"), names)
    return names
