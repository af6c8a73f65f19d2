"""`python -m tests.simulation [told|untold|...|workers]` prints what the limiter makes of each scenario."""

from __future__ import annotations

import sys
import time

from tests.simulation import scenarios, workers
from tests.simulation.scenarios import Scenario


def row(scenario: Scenario) -> str:
    started = time.process_time()
    outcome = scenario.run()
    spent = time.process_time() - started
    passed = [at for at, good in outcome.sends if good]
    last = passed[-1] if passed else 0.0
    return (
        f"{scenario.name:32}{scenario.latency:12}{last:8.1f} s {last / scenario.least:7.3f}  refused"
        f" {outcome.refused:4} {outcome.refused_share:7.2%}  lost {outcome.lost:2}"
        f" undone {len(scenario.costs) - outcome.admitted - outcome.lost:3}"
        f"  {1000 * spent / len(outcome.sends):6.2f} ms a send"
    )


def main() -> None:
    started = time.process_time()
    for name in sys.argv[1:] or ["told", "tokens", "used", "strangers", "changing", "untold"]:
        print(f"\n{name}")
        if name == "workers":
            workers.main()
            continue
        for scenario in getattr(scenarios, name)():
            print(row(scenario), flush=True)
    print(f"\n{time.process_time() - started:.1f} s of CPU")


if __name__ == "__main__":
    main()
