"""`make record PROVIDER=groq`: one fresh response of a provider as a cassette in tests/recorded.

The key is read from the provider's variable of the environment. docs/adding-a-provider.md says more.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import httpx
from tests.recording.cassette import CASES, Cassette, NotRecordedError
from tests.recording.privacy import LeakError
from tests.recording.providers import PROVIDERS

RECORDED = Path(__file__).parents[1] / "recorded"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status is 0, or 2 with a sentence on stderr that says what was wrong."""
    options = _parser().parse_args(arguments)
    provider = PROVIDERS.get(options.provider)
    if provider is None:
        return _wrong(f"PROVIDER must be one of {', '.join(PROVIDERS)}, got {options.provider!r}")
    key = os.environ.get(provider.key, "").strip()
    if not key:
        return _wrong(f"the key of {options.provider} is missing: set {provider.key} in the environment")
    now = datetime.now(timezone.utc)
    cassette = Cassette(
        provider,
        options.provider,
        case=options.case,
        model=options.model or provider.model,
        base_url=options.base_url or provider.base_url,
        at=now.isoformat(timespec="seconds"),
    )
    try:
        privacy = cassette.record(key, options.calls)
    except (NotRecordedError, LeakError) as error:
        return _wrong(str(error))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return _wrong(f"{options.provider} cannot be reached: {type(error).__name__}")
    path = options.into / options.provider / f"{now.date()}-{options.case}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(cassette.written, encoding="utf-8")
    print(path)
    if privacy.left_out:
        print(f"left out, as they say nothing of limits: {', '.join(sorted(privacy.left_out))}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make record", description=__doc__)
    parser.add_argument("provider", nargs="?", default="", help=", ".join(PROVIDERS))
    cases = "; ".join(f"{case}: {what}" for case, what in CASES.items())
    parser.add_argument("--case", choices=CASES, default="chat", help=f"{cases} (default: %(default)s)")
    parser.add_argument("--model", help="another than the table's")
    parser.add_argument("--base-url", help="where to send it, instead of the table's; this is not written")
    parser.add_argument(
        "--calls", type=int, default=60, help="at most, until one is refused (default: %(default)s)"
    )
    parser.add_argument("--into", type=Path, default=RECORDED, help="default: tests/recorded")
    return parser


def _wrong(sentence: str) -> int:
    print(f"make record: {sentence}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
