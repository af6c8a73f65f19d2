"""One request on its way through the provider: fault, admission, latency, answer, settlement."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from adaptive_rate_limiter.testing.calls import Completion, compose
from adaptive_rate_limiter.testing.dialects import Answer
from adaptive_rate_limiter.testing.faults import failure
from adaptive_rate_limiter.testing.server import ABORT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adaptive_rate_limiter.testing.calls import Endpoint, RequestInfo
    from adaptive_rate_limiter.testing.desk import Desk, Receive, Send
    from adaptive_rate_limiter.testing.faults import Fault

UNSTATED_OUTPUT = {"openai": 16}
"""Charged without max_tokens: 169 tokens were taken for a prompt of 153 (recorded in September 2025)."""

SILENCE = Completion("", (), 0)


class Line(NamedTuple):
    """The two ends of an ASGI call."""

    scope: Mapping[str, Any]
    receive: Receive
    send: Send


class Exchange:
    def __init__(self, desk: Desk, endpoint: Endpoint, call: RequestInfo, line: Line) -> None:
        self._desk = desk
        self._conduct = desk.conduct
        self._admission = desk.admission
        self._endpoint = endpoint
        self._call = call
        self._line = line
        self._send = line.send
        self._in_flight = False
        self._began = 0.0

    async def run(self, now: float) -> None:
        call, desk, self._began = self._call, self._desk, now
        fault = desk.fault(call)
        costs = self._costs()
        if fault is not None and fault != "drop_after":
            self._admission.fault(costs["tokens"], now)
            await self._fail(fault)
            return
        conduct = self._conduct
        completion = compose(call, conduct.output_tokens, conduct.tool_calls) if call.generates else SILENCE
        latency = desk.latency(call)
        verdict = self._admission.admit(call.model, costs, now)
        headers = desk.limit_headers(call.model, now)
        if not verdict.admitted:
            await desk.reply(desk.dialect.refusal(verdict, call.model), self._send, call.index, headers)
            return
        self._in_flight = True
        try:
            if fault == "drop_after":
                await desk.pause(latency)
                self._produce(completion.output_tokens * call.choices)
                self._admission.fault(costs["tokens"], time.monotonic())
                await self._cut()
            elif call.stream:
                await self._stream(completion, latency, headers)
            else:
                await self._answer(completion, latency, headers)
        finally:
            self._release()

    def _costs(self) -> dict[str, float]:
        call = self._call
        costs: dict[str, float] = {
            "requests": 1,
            "tokens": call.prompt_tokens,
            "input_tokens": call.prompt_tokens,
        }
        if not call.generates:
            return costs
        if self._conduct.charge == "usage":
            return {**costs, "output_tokens": 0}
        unstated = UNSTATED_OUTPUT.get(self._conduct.provider, 0)
        output = (unstated if call.max_tokens is None else call.max_tokens) * call.choices
        return {**costs, "tokens": call.prompt_tokens + output, "output_tokens": output}

    async def _answer(self, completion: Completion, latency: float, headers: Mapping[str, str]) -> None:
        await self._desk.pause(latency)
        self._produce(completion.output_tokens * self._call.choices)
        answer = Answer(200, self._endpoint.reply(self._call, completion), self._stamped(headers))
        # Before the answer leaves: a client that sends its next request at once must find the slot free.
        self._release()
        await self._desk.reply(answer, self._send, self._call.index)

    async def _stream(self, completion: Completion, latency: float, headers: Mapping[str, str]) -> None:
        """Half of the latency passes before the first byte, the rest between the pieces."""
        desk, events = self._desk, self._endpoint.events(self._call, completion)
        await desk.pause(latency / 2)
        head = desk.head(self._stamped(headers), "text/event-stream; charset=utf-8", self._call.index)
        await self._send({"type": "http.response.start", "status": 200, "headers": head})
        spoken = sum(1 for _, count in events if count) or 1
        waiting: list[bytes] = []
        for event, count in events:
            if count:
                await self._flush(waiting)
                await desk.pause(latency / 2 / spoken)
                self._produce(count)
            waiting.append(event)
        self._release()
        await self._flush(waiting, more=False)

    async def _flush(self, waiting: list[bytes], *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": b"".join(waiting), "more_body": more})
        waiting.clear()

    def _stamped(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        now = time.monotonic()
        if self._conduct.stamp != "admission":
            headers = self._desk.limit_headers(self._call.model, now)
        name = self._desk.dialect.processing
        return {**headers, name: f"{1000 * (now - self._began):.0f}"} if name else headers

    def _produce(self, output_tokens: int) -> None:
        if self._conduct.charge == "usage" and output_tokens:
            costs = {"tokens": output_tokens, "output_tokens": output_tokens}
            self._admission.produce(self._call.model, costs, time.monotonic())

    def _release(self) -> None:
        if self._in_flight:
            self._in_flight = False
            self._admission.release(self._call.model)

    async def _fail(self, fault: Fault) -> None:
        if isinstance(fault, int):
            await self._desk.reply(failure(self._conduct.provider, fault), self._send, self._call.index)
        else:
            await self._cut()

    async def _cut(self) -> None:
        self._release()
        self._line.scope[ABORT]()
        while (await self._line.receive())["type"] != "http.disconnect":
            pass
