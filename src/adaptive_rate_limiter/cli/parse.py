"""`parse`: what responses say of limits, and what the limiter does next."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from adaptive_rate_limiter.cli import origin, words
from adaptive_rate_limiter.cli.arguments import UnusableError, positive
from adaptive_rate_limiter.cli.outlook import outlook
from adaptive_rate_limiter.cli.replies import FORMS, replies_in
from adaptive_rate_limiter.http.payload import describe, usage_of
from adaptive_rate_limiter.providers import parse_response

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from adaptive_rate_limiter.cli.outlook import Outlook
    from adaptive_rate_limiter.cli.replies import Reply
    from adaptive_rate_limiter.types import RateLimitInfo

USUAL_NAMES = "x-ratelimit-*"  # of many providers
USUAL_TOKENS = 1000  # of a call of which nothing is known
HEADINGS = ("unit", "limit", "each", "remaining", "full in", "full at", "scope", "told by")
NUMBERS = frozenset({"limit", "remaining", "full in"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One response, what it says, and what comes next. `sent` is Unix seconds, where a Date tells them."""

    place: int
    status: int
    host: str | None
    dialect: str | None
    sent: float | None
    info: RateLimitInfo
    told_by: list[str]
    next: Outlook

    @property
    def silent(self) -> bool:
        return not self.info.quotas and self.info.refusal is None


def add(commands: Any) -> None:
    parse = commands.add_parser(
        "parse",
        help="what a response says of limits, and what the limiter would do next",
        description=f"Reads {FORMS}: says which limits they tell, and what a limiter that"
        " knew nothing before would do after each response. Nothing is sent.",
    )
    parse.add_argument("file", nargs="?", default="-", help="what to read (default: standard input)")
    parse.add_argument("--json", action="store_true", help="for scripts: every response, and all figures")
    parse.add_argument("--status", type=_status, help="the response's status, where it is not in the input")
    parse.add_argument("--url", help="where the request went: some dialects are known by their host alone")
    parse.add_argument(
        "--tokens",
        type=positive,
        help=f"size of the next call (default: that of the recorded one, else {USUAL_TOKENS:,})",
    )
    parse.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    data, source = _read(options.file)
    replies = replies_in(data, source, status=options.status)
    findings = [_finding(place, reply, options) for place, reply in enumerate(replies, 1)]
    if options.json:
        print(json.dumps({"responses": [_values(finding) for finding in findings]}, indent=2))
    else:
        print("\n\n".join(_paragraphs(findings)))


def _status(text: str) -> int:
    status = int(text)
    if not 100 <= status <= 999:  # noqa: PLR2004 - three digits
        raise ValueError(text)
    return status


def _read(file: str) -> tuple[bytes, str]:
    if file == "-":
        if sys.stdin.isatty():
            print(f"Paste {FORMS}; end with Ctrl-D.", file=sys.stderr)
        return sys.stdin.buffer.read(), "standard input"
    try:
        return Path(file).read_bytes(), file
    except OSError as error:
        raise UnusableError(f"{file} cannot be read: {error.strerror}; give {FORMS}") from error


def _finding(place: int, reply: Reply, options: argparse.Namespace) -> Finding:
    status = options.status or reply.status or 200
    url = options.url or reply.url
    body = reply.content
    info = parse_response(reply.headers, body, status, url=url)
    return Finding(
        place=place,
        status=status,
        host=_split(url)[0],
        dialect=origin.known_dialect(reply.headers, url),
        sent=_sent(reply),
        info=info,
        told_by=origin.tellers(info, reply.headers, status, url),
        next=outlook(info, _call(reply, body, options.tokens), url),
    )


def _call(reply: Reply, body: Any, tokens: int | None) -> dict[str, Any]:
    """How large the next call is: what is said, else what the recorded call used, or asked for."""
    usage = usage_of(body) or {}
    used: dict[str, Any] = {name: usage[name] for name in ("input_tokens", "output_tokens") if name in usage}
    if tokens is not None:
        return {"input_tokens": float(tokens), "output_tokens": 0.0}
    if used:
        return used
    asked = describe(reply.request or b"", _split(reply.url)[1])
    asked.pop("model", None)
    return asked or {"input_tokens": float(USUAL_TOKENS), "output_tokens": 0.0}


def _split(url: str | None) -> tuple[str | None, str]:
    """Host and path: the rest of an address may hold a secret."""
    try:
        parts = urlsplit(url if url and "//" in url else f"//{url or ''}")
    except ValueError:
        return None, ""
    return parts.hostname, parts.path


def _sent(reply: Reply) -> float | None:
    date = next((value for name, value in reply.headers if name.lower() == "date"), "")
    try:
        return parsedate_to_datetime(date[:80]).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


# For people


def _paragraphs(findings: Sequence[Finding]) -> list[str]:
    """One for each response that says something, and a line for all that do not."""
    several = len(findings) > 1
    telling = [finding for finding in findings if not finding.silent] or list(findings[-1:])
    paragraphs = [_paragraph(finding, numbered=several) for finding in telling]
    silent = len(findings) - len(telling)
    if silent:
        others = "1 other response says" if silent == 1 else f"{silent:,} other responses say"
        paragraphs.append(f"{others} nothing of limits.")
    return paragraphs


def _paragraph(finding: Finding, *, numbered: bool) -> str:
    title = (f"#{finding.place}  " if numbered else "") + str(finding.status)
    title += f" from {finding.host}" if finding.host else ""
    title += f" (dialect: {finding.dialect})" if finding.dialect else ""
    lines = [title]
    if finding.info.quotas:
        lines += _table(finding)
    else:
        lines.append("limits: none told")
    if finding.info.refusal is not None:
        lines.append(f"refused: {words.refused(finding.info.refusal)}")
    lines.append(f"next: {words.next_step(finding.next, finding.info.refusal, finding.sent)}")
    if finding.host is None and any(USUAL_NAMES in family for family in finding.told_by):
        lines.append(
            "note: the host is not known; say it with --url, since some count by the day under the same names"
        )
    return "\n".join(words.plain(line) for line in lines)


def _table(finding: Finding) -> list[str]:
    rows = [
        (
            quota.unit,
            words.count(quota.limit),
            words.window(quota.window),
            words.count(quota.remaining),
            words.span(quota.reset_after),
            words.instant(finding.sent, quota.reset_after) or "-",
            quota.scope or "-",
            told_by,
        )
        for quota, told_by in zip(finding.info.quotas, finding.told_by, strict=True)
    ]
    widths = [max(map(len, column)) for column in zip(HEADINGS, *rows, strict=True)]
    return ["  ".join(map(_aligned, row, widths, HEADINGS)).rstrip() for row in (HEADINGS, *rows)]


def _aligned(cell: str, width: int, heading: str) -> str:
    return cell.rjust(width) if heading in NUMBERS else cell.ljust(width)


# For scripts


def _values(finding: Finding) -> dict[str, Any]:
    info, outlook = finding.info, finding.next
    refusal = None if info.refusal is None else asdict(info.refusal) | {"kind": info.refusal.kind.value}
    return {
        "status": finding.status,
        "host": finding.host,
        "dialect": finding.dialect,
        "date": words.instant(finding.sent, 0.0),
        "limits": [
            {
                "unit": quota.unit,
                "limit": quota.limit,
                "window": quota.window,
                "remaining": quota.remaining,
                "reset_after": quota.reset_after,
                "full_at": words.instant(finding.sent, quota.reset_after),
                "scope": quota.scope,
                "told_by": told_by,
            }
            for quota, told_by in zip(info.quotas, finding.told_by, strict=True)
        ],
        "refusal": refusal,
        "next": {
            "action": outlook.action,
            "sentence": words.next_step(outlook, info.refusal, finding.sent),
            "wait": outlook.wait,
            "until": words.instant(finding.sent, outlook.wait),
            "reasons": outlook.reasons,
            "refused": outlook.refused,
            "paces": [pace._asdict() for pace in outlook.paces],
        },
    }
