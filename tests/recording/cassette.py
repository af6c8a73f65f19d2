"""One recording: the response, through vcrpy and the filter, as a file like those in tests/recorded."""

from __future__ import annotations

import json
from typing import Any

import httpx
import yaml
from tests.recording.privacy import FIRST_ERROR, Privacy
from tests.recording.providers import Provider
from vcr import VCR
from vcr.persisters.filesystem import CassetteNotFoundError
from vcr.serialize import serialize

TIMEOUT = 120.0  # seconds
CASES = {
    "chat": "a short answer",
    "stream": "the same, streamed",
    "refused": "short calls until one is refused; only that one is written",
}
MISTAKES = frozenset({400, 401, 404})  # of the request, not of its pace


class NotRecordedError(Exception):
    """The response is not what was to be recorded; one sentence says what it was."""


class Cassette:
    """Records one case of a provider; `written` is its file's text, which holds nothing private."""

    def __init__(
        self, provider: Provider, name: str, *, case: str, model: str, base_url: str, at: str
    ) -> None:
        self.provider = provider
        self.name = name
        self.case = case
        self.model = model
        self.base_url = base_url
        self.at = at
        self.written = ""
        self._status = 0

    def record(self, key: str, calls: int) -> Privacy:
        """Ask the provider, at most `calls` times.

        Raises NotRecordedError where it says something else than the case wants, LeakError if something
        private is left, httpx.HTTPError where it cannot be reached.
        """
        host, home = httpx.URL(self.base_url).host, httpx.URL(self.provider.base_url).host
        privacy = Privacy([key, host] if host != home else [key], spared=[self.model, home])
        recorder = VCR(
            record_mode="all",
            serializer="house",
            record_on_exception=False,
            decode_compressed_response=True,
            before_record_request=lambda request: self._request(request, privacy),
            before_record_response=lambda response: self._response(response, privacy),
        )
        recorder.register_serializer("house", self)
        recorder.register_persister(self)
        with recorder.use_cassette(self.name):
            reply = self._ask(key, calls)
            self._judge(reply, privacy)
        privacy.check(self.written)
        return privacy

    def _ask(self, key: str, calls: int) -> httpx.Response:
        headers = {**self.provider.headers(key), "accept-encoding": "identity"}
        base = httpx.URL(self.base_url)
        url = base.copy_with(path=base.path.rstrip("/") + self.provider.path)
        body = self.provider.body(self.model, stream=self.case == "stream")
        with httpx.Client(timeout=TIMEOUT, headers=headers) as client:
            for _ in range(calls if self.case == "refused" else 1):
                reply = client.post(url, json=body)
                if reply.status_code >= FIRST_ERROR:
                    break
        return reply

    def _judge(self, reply: httpx.Response, privacy: Privacy) -> None:
        status = reply.status_code
        if status in MISTAKES or (status >= FIRST_ERROR) != (self.case == "refused"):
            wanted = "a refusal" if self.case == "refused" else "an answer"
            said = privacy.text(" ".join(reply.text[:300].split()))
            raise NotRecordedError(f"{self.name} answered {status} where {wanted} was wanted: {said}")

    # vcrpy asks for these

    def _request(self, request: Any, privacy: Privacy) -> Any:
        request.uri = privacy.url(request.uri, self.base_url, self.provider.base_url)
        request.headers = {"content-type": "application/json"}
        request.body = privacy.text(json.dumps(json.loads(request.body))).encode()
        return request

    def _response(self, response: Any, privacy: Privacy) -> Any:
        status = response["status"]["code"]
        encodings = [
            value
            for name, values in response["headers"].items()
            if name.lower() == "content-encoding"
            for value in values
        ]
        headers = privacy.headers(response["headers"])
        if (self.case == "refused") != (status >= FIRST_ERROR):
            return None  # what it names is learned all the same
        if encodings:  # vcrpy could not read it, so neither can the filter
            raise NotRecordedError(
                f"{self.name} compressed its response ({', '.join(encodings)}), so it cannot be filtered"
            )
        self._status = status
        body = privacy.body(response["body"]["string"].decode(), status)
        return {"status": response["status"], "headers": headers, "body": {"string": body.encode()}}

    def load_cassette(self, cassette_path: Any, serializer: Any) -> Any:
        raise CassetteNotFoundError

    def save_cassette(self, cassette_path: Any, cassette_dict: Any, serializer: Any) -> None:
        self.written = serialize(cassette_dict, serializer)

    def deserialize(self, text: str) -> Any:
        raise NotImplementedError

    def serialize(self, recorded: dict[str, Any]) -> str:
        """The last interaction, in the form of the others."""
        interaction = recorded["interactions"][-1]
        request, response = interaction["request"], interaction["response"]
        document = {
            "recorded_from": {
                "repo": "adaptive-rate-limiter/adaptive-rate-limiter",
                "path": "docs/adding-a-provider.md",
                "at": self.at,
            },
            "interactions": [
                {
                    "request": {
                        "method": request["method"],
                        "uri": request["uri"],
                        "headers": _flowing(request["headers"]),
                        "body": request["body"],
                    },
                    "response": {
                        "status": _Flow(response["status"]),
                        "headers": _flowing(response["headers"]),
                        "body": {"string": response["body"]["string"]},
                    },
                }
            ],
            "version": 1,
        }
        note = (
            f"# {self.model} at {self.name}: {CASES[self.case]}, {self._status}.\n"
            "# Status, headers and figures as recorded by `make record`; what names anybody is filtered, the answer replaced.\n"
        )
        return note + yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=10**6, allow_unicode=True)


class _Flow(dict[str, Any]):
    """Written in one line."""


class _FlowList(list[str]):
    """Written in one line."""


def _flowing(headers: dict[str, Any]) -> dict[str, Any]:
    return {name: _FlowList(values) for name, values in sorted(headers.items())}


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)
_Dumper.add_representer(
    _Flow, lambda dumper, values: dumper.represent_mapping("tag:yaml.org,2002:map", values, flow_style=True)
)
_Dumper.add_representer(
    _FlowList,
    lambda dumper, values: dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True),
)
