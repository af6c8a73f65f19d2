"""`make chaos`: processes under load on a cluster that is killed, paused, flushed, failed over, resharded and cut.

`python -m tests.chaos [--seconds 300] [--seed 0]`. What is done to the servers is drawn from the seed and printed. In
the end every caller has had an answer, the provider has refused next to nothing, and all that was leased is back.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from tests.chaos.servers import LinkedCluster
from tests.redis.topologies import until

import redis
from adaptive_rate_limiter.backends.redis.status import pools
from adaptive_rate_limiter.backends.redis.wire import keys_of
from adaptive_rate_limiter.core.pool import LEASE, LIVES
from adaptive_rate_limiter.testing import ProviderEmulator

ROOT = Path(__file__).parents[2]
MODELS = ("gpt-4o", "gpt-4o-mini", "o3")
LIMIT = 100  # requests of each model in each window,
WINDOW = 10.0  # seconds: short, so that all is back soon
WORKERS, CALLERS = 4, 6  # processes, and callers of each for each model
LONGEST_PAUSE = 10.0  # seconds
REFUSED = 0.01  # of what was sent: a replica that becomes primary may not have had the last renewals
FAULTS = (
    "kill_a_worker", "flush_scripts", "pause_a_primary", "kill_a_primary", "fail_over", "reshard", "cut_a_link",
    "slow_a_link",
)  # fmt: skip
ENDS_IN = 60.0  # seconds in which a worker must have answered everybody, once it was told to stop


class Storm:
    def __init__(self, cluster: LinkedCluster, provider: ProviderEmulator, seed: int) -> None:
        self.cluster = cluster
        self.provider = provider
        self.random = random.Random(seed)
        self.only: list[str] = []
        self.workers: list[subprocess.Popen[str]] = []
        self.done: Counter[str] = Counter()
        self.began = time.monotonic()

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", flush=True)

    # Workers

    def start_worker(self) -> None:
        options = {
            "nodes": [port for _, port in self.cluster.addresses], "provider": self.provider.base_url,
            "models": MODELS, "callers": CALLERS, "on_outage": "degrade",
        }  # fmt: skip
        command = [sys.executable, "-m", "tests.chaos.worker", json.dumps(options)]
        worker = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.workers.append(worker)

    def stop_workers(self) -> list[dict[str, float]]:
        found = []
        for worker in self.workers:
            worker.stdin.close()
            worker.stdin = None
        for worker in self.workers:
            said, _ = worker.communicate(timeout=ENDS_IN)
            found.append(json.loads(said.splitlines()[-1]))
        return found

    # Faults; each puts right again what it did

    def kill_a_worker(self) -> None:
        worker = self.workers.pop(self.random.randrange(len(self.workers)))
        worker.kill()
        worker.communicate()
        self.start_worker()

    def flush_scripts(self) -> None:
        for node in self.cluster.nodes:
            node.ask("SCRIPT", "FLUSH")

    def pause_a_primary(self, seconds: float | None = None) -> None:
        node = self._primary()
        os.kill(node.process.pid, signal.SIGSTOP)
        time.sleep(self.random.uniform(0.2, LONGEST_PAUSE) if seconds is None else seconds)
        os.kill(node.process.pid, signal.SIGCONT)

    def kill_a_primary(self) -> None:
        node = self._primary()
        node.stop()
        time.sleep(self.random.uniform(2, 5))
        node.start()

    def fail_over(self) -> None:
        replica = next(node for node in self.cluster.nodes if node.ask("ROLE")[0] == "slave")
        replica.ask("CLUSTER", "FAILOVER")

    def reshard(self) -> None:
        key = self._key()
        source = self.cluster.owner(key)
        primaries = [node for node in self.cluster.nodes if node.ask("ROLE")[0] == "master"]
        target = self.random.choice([node for node in primaries if node is not source])
        self.cluster.begin_move(key, source, target)
        time.sleep(self.random.uniform(0, 1))
        self.cluster.move_keys(key, source, target)
        time.sleep(self.random.uniform(0, 1))
        self.cluster.end_move(key, source, target)

    def cut_a_link(self) -> None:
        link = self._primary().link
        self.random.choice([link.cut, link.silence])()
        time.sleep(self.random.uniform(0.2, 5))
        link.heal()

    def slow_a_link(self) -> None:
        link = self._primary().link
        link.delay = self.random.uniform(0.05, 0.3)
        time.sleep(self.random.uniform(1, 4))
        link.delay = 0.0

    def _key(self) -> str:
        return keys_of("default", f"default/{self.random.choice(MODELS)}")[0]

    def _primary(self):
        """One that has a bucket."""
        return self.cluster.owner(self._key())

    # The whole

    def blow(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        if not self.only:
            self.say(f"a primary is paused for {LONGEST_PAUSE:g} s")
            self.pause_a_primary(LONGEST_PAUSE)
        faults = [getattr(self, name) for name in self.only or FAULTS]
        while time.monotonic() < ends:
            until(self.cluster.is_whole)
            fault = self.random.choice(faults)
            stats = self.provider.stats()
            self.say(f"{stats.admitted} let in, {stats.refused} refused; {fault.__name__.replace('_', ' ')}")
            fault()
            self.done[fault.__name__] += 1
            time.sleep(self.random.uniform(0.5, 3))

    def pools(self) -> list[dict]:
        with redis.Redis(port=self.cluster.owner(self._key()).port) as client:
            return list(pools(client))


def judge(storm: Storm, found: list[dict[str, float]]) -> list[str]:
    """What went wrong."""
    wrong = []
    for each in found:
        answered = each.get("done", 0) + each.get("refused", 0) + each.get("late", 0)
        if each["stuck"] or each["asked"] != answered:
            wrong.append(f"a caller had no answer in time: {each}")
    stats = storm.provider.stats()
    if stats.refused > REFUSED * stats.requests:
        wrong.append(f"refused: {stats.refused} of {stats.requests}")
    for pool in storm.pools():
        if pool["workers"]:
            wrong.append(f"workers that have gone are still counted: {pool}")
        for limit in pool["limits"]:
            if limit["leased"] or limit["left"] < 0.999 * limit["limit"]:
                wrong.append(f"something has leaked: {limit}")
            if limit["left"] > limit["limit"] * 1.001:
                wrong.append(f"something was made of nothing: {limit}")
    if len(storm.pools()) != len(MODELS):
        wrong.append("a pool is missing")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=FAULTS, action="append", help="this fault alone")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cluster = stack.enter_context(LinkedCluster(folder / "cluster"))
        provider = stack.enter_context(
            ProviderEmulator(
                "openai", requests_per_minute=LIMIT, window=WINDOW, per_model=True, latency=(0.02, 0.2)
            )
        )
        storm = Storm(cluster, provider, options.seed)
        storm.only = options.only or []
        stack.callback(lambda: [worker.kill() for worker in storm.workers])
        for _ in range(WORKERS):
            storm.start_worker()
        for worker in storm.workers:
            assert worker.stdout.readline() == "at work\n"
        storm.blow(options.seconds)
        until(cluster.is_whole)
        found = storm.stop_workers()
        time.sleep(2 * WINDOW + LIVES * LEASE)  # by then all is back
        wrong = judge(storm, found)
        stats = provider.stats()
    print(f"faults: {dict(storm.done)}")
    print(f"workers that were not killed: {found}")
    took = stats.last_admitted_at - stats.first_at
    print(
        f"the provider let {stats.admitted} in and refused {stats.refused}; {took:.0f} s, T* {stats.lower_bound:.0f} s"
    )
    print("\n".join(wrong) or "every caller had an answer, and nothing has leaked")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
