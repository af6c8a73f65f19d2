"""What of a recording may be written: figures of limits and words of refusals, and nothing that names anybody.

Headers are kept only where they speak of limits. What the others hold that names somebody (cookies, keys,
organisations, requests) is remembered, and taken out wherever else it stands; so is what has the form of an
id. What was generated is replaced, for it says nothing of limits.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, urlencode, urlsplit, urlunsplit

from adaptive_rate_limiter.providers.names import meaning_of

FILTERED = "filtered"
ANSWER = "Hello!"
SHORTEST = 6  # characters of a value that may be taken out of a text: shorter ones are words of it
FIRST_ERROR = 400

KEPT = frozenset({"content-type", "date", "x-should-retry"})
LIMITS = re.compile(r"limit|quota|remaining|reset|retry|concurren|throttl|overload|endpoint-.*call|x-codex-")
NAMING = re.compile(
    r"cookie|auth|key|token$|secret|organi[sz]ation|\borg\b|project|account|workspace|team|user|session|ray|trace"
    r"|(?:^|-)id$|request-?id|correlation"
)
KEPT_PARAMETERS = frozenset({"api-version", "alt", "stream"})

# Keys of JSON whose value names somebody or one response.
IDS = frozenset({
    "id", "request_id", "requestid", "response_id", "organization", "organization_id", "org", "org_id", "user",
    "user_id", "userid", "project", "project_id", "account", "account_id", "workspace", "workspace_id", "team_id",
    "session_id", "trace_id", "traceid", "system_fingerprint", "ip", "email", "consumer", "generation_id",
})  # fmt: skip
# Keys of what was generated; the first one that holds text becomes the answer.
GENERATED = ("content", "text")
THOUGHTS = ("reasoning", "reasoning_content", "thinking", "signature")

_IDS = re.compile(
    r"(?i:bearer) \S+"
    r"|[\w.+-]+@[\w-]+\.[\w.-]+"  # an address
    r"|\b(?:\d{1,3}\.){3}\d{1,3}\b"
    r"|\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"
    r"|\b(?:org|sk|pk|gsk|xai|hf|csk|nvapi|pplx|fw)[-_][\w*-]{4,}"
    r"|\b(?:req|msg|chatcmpl|cmpl|resp|gen|call|run|sess|fp|proj|project|acct|account|user|team|ws|workspace|key)"
    r"[-_](?=[A-Za-z_-]*\d)[\w*-]{6,}"
    r"|\b(?<=projects/)[\w-]+"
    r"|\b(?=[A-Za-z]*\d[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z0-9]{16,}\b"
)


class LeakError(Exception):
    """Something that must not be written would be."""


class Privacy:
    """Takes out of one recording what names somebody. `spared` are words that are kept, such as the model's name."""

    def __init__(self, secrets: list[str], spared: list[str]) -> None:
        self._known: dict[str, None] = {}
        self._spared = re.compile("|".join(f"({re.escape(word)})" for word in spared if word) or r"(?!)")
        self.left_out: dict[str, None] = {}
        self._answered = False
        for secret in secrets:
            self.learn(secret)

    def learn(self, value: str) -> None:
        """Take `value` out from now on, in every spelling that a text may have of it."""
        if len(value) < SHORTEST or value == FILTERED:  # vcrpy filters some requests again
            return
        spellings = (value, quote(value, safe=""), quote_plus(value), json.dumps(value)[1:-1])
        for spelling in (*spellings, base64.b64encode(value.encode()).decode()):
            self._known[spelling] = None

    def check(self, text: str) -> None:
        """Raises LeakError if anything learned stands in `text`, other than in what is spared."""
        text = self._spared.sub("", text)
        if any(secret in text for secret in self._known):
            raise LeakError("a secret would have been written: nothing was")

    def text(self, text: str) -> str:
        for secret in sorted(self._known, key=len, reverse=True):
            text = text.replace(secret, FILTERED)
        parts, at = [], 0
        for spared in self._spared.finditer(text):
            parts += [_IDS.sub(FILTERED, text[at : spared.start()]), spared[0]]
            at = spared.end()
        return "".join([*parts, _IDS.sub(FILTERED, text[at:])])

    def url(self, url: str, sent_to: str, written_as: str) -> str:
        """The provider's own address in place of where it really went, without the values of parameters."""
        told = urlsplit(url)
        path = told.path.removeprefix(urlsplit(sent_to).path)
        home = urlsplit(written_as)
        parameters = parse_qsl(told.query, keep_blank_values=True)
        for name, value in parameters:
            if name not in KEPT_PARAMETERS:
                self.learn(value)
        query = urlencode(
            [(name, value if name in KEPT_PARAMETERS else FILTERED) for name, value in parameters]
        )
        return urlunsplit((home.scheme, home.netloc, home.path + path, query, ""))

    def headers(self, headers: dict[str, list[str]]) -> dict[str, list[str]]:
        """Those that speak of limits. What the others name is learned."""
        kept = {}
        for name, values in headers.items():
            lower = name.lower()
            names_somebody = NAMING.search(lower)
            told = meaning_of(lower.encode()) is not None or (LIMITS.search(lower) and not names_somebody)
            if told or lower in KEPT:
                kept[name] = values
                continue
            self.left_out[lower] = None
            for value in values if names_somebody else ():
                self.learn(value.partition(";")[0].partition("=")[2] if "cookie" in lower else value)
        return {name: [self.text(value) for value in values] for name, values in kept.items()}

    def body(self, text: str, status: int) -> str:
        """A body in JSON, server-sent events with JSON in them, or text."""
        generated = status < FIRST_ERROR
        self._answered = False
        try:
            return json.dumps(self._values(json.loads(text), generated), indent=2, ensure_ascii=False)
        except ValueError:
            pass
        return "\n".join(self._event(line, generated) for line in text.split("\n"))

    def _event(self, line: str, generated: bool) -> str:
        field, colon, rest = line.partition(":")
        if field == "data" and colon:
            try:
                return f"data: {json.dumps(self._values(json.loads(rest), generated), ensure_ascii=False)}"
            except ValueError:
                pass
        return self.text(line)

    def _values(self, value: Any, generated: bool, key: str = "") -> Any:
        if isinstance(value, dict):
            return {self.text(name): self._values(inner, generated, name) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._values(inner, generated, key) for inner in value]
        if key.lower() in IDS and isinstance(value, (str, int, float)) and value:
            return FILTERED
        if not isinstance(value, str):
            return value
        if generated and value and key in GENERATED + THOUGHTS:
            answer = key in GENERATED and not self._answered
            self._answered = self._answered or answer
            return ANSWER if answer else ""
        return self.text(value)
