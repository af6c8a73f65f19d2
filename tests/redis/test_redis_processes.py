"""Several processes behind one limit of an emulated provider, which nobody stated."""

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from adaptive_rate_limiter.testing import ProviderEmulator

ROOT = Path(__file__).parents[2]


PATIENCE = 40  # seconds: what is not done by then hangs


def run(options):
    """What each worker reports, all having run at once."""
    with ExitStack() as stack:
        workers = []
        for each in options:
            command = [sys.executable, "-m", "tests.redis.worker", json.dumps(each)]
            worker = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
            workers.append(stack.enter_context(worker))
            stack.callback(worker.kill)
        return [json.loads(worker.communicate(timeout=PATIENCE)[0]) for worker in workers]


def test_processes_share_a_limit_that_only_headers_tell_and_reach_it_without_refusals(redis_server):
    """A hundred requests in ten seconds, 130 calls, from two processes of which one wants more."""
    with ProviderEmulator("openai", requests_per_minute=100, window=10.0, latency=(0.02, 0.1)) as provider:
        options = {"redis": redis_server.url, "provider": provider.base_url, "concurrency": 20}
        options["backend"] = {"namespace": f"processes-{time.monotonic()}"}
        results = run([{**options, "calls": count} for count in (90, 40)])
        stats = provider.stats()
    assert [result["done"] for result in results] == [90, 40]
    assert stats.admitted == 130
    assert stats.refused <= 1
    seconds = max(result["last"] for result in results) - min(min(result["at"]) for result in results)
    assert 2.5 <= seconds <= 12.0  # 3 is (130 - 100) / 10 a second; a window more while it may still be one
