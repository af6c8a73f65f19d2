"""LangChain's standard tests come to the same result with AdaptiveLimiter in place as without it, test by test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

pytest.importorskip("langchain_tests")

LONGEST = 240  # seconds; it takes less than twenty on a machine that has nothing else to do
pytestmark = pytest.mark.timeout(LONGEST + 10)

SUITE = Path(__file__).with_name("standard_suite.py")
OPTIONS = [
    "-c", os.devnull, "--rootdir", str(SUITE.parent), "-p", "no:cacheprovider", "-q", "-W", "ignore",
    "-o", "asyncio_mode=auto",
    "-o", "asyncio_default_test_loop_scope=session", "-o", "asyncio_default_fixture_loop_scope=session",
]  # fmt: skip


def _outcome(case):
    for kind in ("failure", "error", "skipped"):
        found = case.find(kind)
        if found is not None:
            return f"{kind}: {found.get('message', '').splitlines()[0]}"
    return "passed"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """{("bare" or "limited", kind and name of the test): what became of it}."""
    report = tmp_path_factory.mktemp("standard") / "report.xml"
    subprocess.run(
        [sys.executable, "-m", "pytest", *OPTIONS, f"--junitxml={report}", str(SUITE)],
        check=False, capture_output=True, timeout=LONGEST, cwd=SUITE.parent,
        env={**os.environ, "OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"},
    )  # fmt: skip
    arms = {"Bare": {}, "Limited": {}}
    for case in ET.parse(report).iter("testcase"):
        kind = case.get("classname").rpartition(".")[2]
        arm = "Bare" if kind.endswith("Bare") else "Limited"
        arms[arm][kind.removesuffix(arm), case.get("name")] = _outcome(case)
    return arms


def test_each_test_ends_as_it_does_without_the_limiter(outcomes):
    assert outcomes["Limited"] == outcomes["Bare"]


def test_they_were_run_and_pass(outcomes):
    """What the emulator cannot do is skipped in both."""
    ends = [outcome.partition(":")[0] for outcome in outcomes["Limited"].values()]
    assert not {"failure", "error"} & set(ends)
    assert ends.count("passed") >= 100
