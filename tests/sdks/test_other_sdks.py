"""What docs/other-sdks.md shows for libraries that are not on httpx, against real servers."""

import contextlib
import json
import re
from concurrent import futures
from pathlib import Path

import aiohttp
import botocore.session
import grpc
import pytest
import requests
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError

from adaptive_rate_limiter import Limiter

PAGE = Path(__file__).parent.parent.parent / "docs" / "other-sdks.md"
CODE = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
CALL = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20}
PACED = {"requests_per_minute": 10, "window": 1.0, "latency": 0.002}


def shown(name):
    """The definition of `name` as the page has it, with the imports of its snippet."""
    (code,) = [code for code in CODE if re.search(rf"^(class|def) {name}\b", code, re.MULTILINE)]
    code = code.replace("asyncio.run(main())", "")  # there may be a loop already
    namespace = {"__name__": "shown"}
    with contextlib.redirect_stdout(None):
        exec(compile(code, str(PAGE), "exec"), namespace)
    return namespace[name]


def _ended(limiter, admitted, refused=0):
    (bucket,) = [bucket for bucket in limiter.snapshot().buckets if bucket.admitted]
    assert (bucket.admitted, bucket.refused) == (admitted, refused)
    assert (bucket.in_flight, bucket.waiting) == (0, 0)
    return bucket


def test_requests_is_paced(provider_emulator):
    emulator, limiter = provider_emulator("ietf", **PACED), Limiter()
    with requests.Session() as session:
        session.mount(emulator.base_url, shown("PacedAdapter")(limiter))
        for _ in range(15):
            assert session.post(emulator.base_url + "/chat/completions", json=CALL).ok
    stats = emulator.stats()
    assert (stats.admitted, stats.refused) == (15, 0)
    assert stats.last_admitted_at - stats.first_at >= 0.45
    _ended(limiter, 15)


def test_a_refusal_through_requests_is_learned(wire, limiter, books):
    wire.answers(b'{"error": "slow down"}', status=429, retry_after="7")
    with requests.Session() as session:
        session.mount(wire.url, shown("PacedAdapter")(limiter))
        assert session.post(wire.url + "/x", json=CALL).status_code == 429
    assert books.bucket.refused == 1
    assert books.bucket.in_flight == 0


def test_requests_is_settled_by_what_was_used(wire, limiter, books):
    wire.answers(b'{"usage": {"prompt_tokens": 170, "completion_tokens": 130}}')
    with requests.Session() as session:
        session.mount(wire.url, shown("PacedAdapter")(limiter))
        session.post(wire.url + "/x", json=CALL)
    assert books.settled() == {"requests": 1, "tokens": 300}


async def test_aiohttp_is_paced(provider_emulator):
    emulator, limiter = provider_emulator("ietf", **PACED), Limiter()
    async with aiohttp.ClientSession(middlewares=[shown("paced_by")(limiter)]) as session:
        for _ in range(15):
            async with session.post(emulator.base_url + "/chat/completions", json=CALL) as response:
                assert response.status == 200
    stats = emulator.stats()
    assert (stats.admitted, stats.refused) == (15, 0)
    _ended(limiter, 15)


async def test_aiohttp_is_settled_by_what_was_used(wire, limiter, books):
    wire.answers(b'{"usage": {"prompt_tokens": 170, "completion_tokens": 130}}')
    async with (
        aiohttp.ClientSession(middlewares=[shown("paced_by")(limiter)]) as session,
        session.post(wire.url + "/x", json=CALL) as response,
    ):
        assert (await response.json())["usage"]["prompt_tokens"] == 170
    assert books.settled() == {"requests": 1, "tokens": 300}


# botocore: Bedrock's Converse

CONVERSE = {
    "modelId": "anthropic.claude:0",
    "messages": [{"role": "user", "content": [{"text": "Hello"}]}],
    "inferenceConfig": {"maxTokens": 140},
}
CONVERSED = json.dumps(
    {
        "output": {"message": {"role": "assistant", "content": [{"text": "Hi"}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 170, "outputTokens": 130, "totalTokens": 300},
        "metrics": {"latencyMs": 1},
    }
).encode()


@pytest.fixture
def bedrock(limiter):
    clients = []

    def start(url, attempts=1):
        session = botocore.session.Session()
        session.set_credentials("key", "secret")
        config = Config(retries={"total_max_attempts": attempts})
        client = session.create_client(
            "bedrock-runtime", region_name="us-east-1", endpoint_url=url, config=config
        )
        shown("pace")(client, limiter)
        clients.append(client)
        return client

    yield start
    for client in clients:
        client.close()


def test_botocore_is_settled_by_what_was_used(bedrock, wire, books):
    wire.answers(CONVERSED)
    bedrock(wire.url).converse(**CONVERSE)
    assert "anthropic.claude:0" in books.bucket.bucket_id.replace("%3A", ":")
    (reserved,) = wire.reserved
    assert 140 <= reserved["tokens"] <= 170
    assert books.settled() == {"requests": 1, "tokens": 300}


def test_each_attempt_of_botocore_is_admitted(bedrock, wire, books):
    wire.answers(b'{"message": "Too many requests"}', status=429, x_amzn_errortype="ThrottlingException")
    with pytest.raises(ClientError, match="ThrottlingException"):
        bedrock(wire.url, attempts=2).converse(**CONVERSE)
    assert len(wire.asked) == 2
    assert (books.bucket.admitted, books.bucket.refused, books.bucket.in_flight) == (2, 2, 0)


def test_a_connection_that_botocore_cannot_make_leaves_nothing(bedrock, books):
    with pytest.raises(EndpointConnectionError):
        bedrock("http://127.0.0.1:9").converse(**CONVERSE)
    assert books.settled()["requests"] == 1


# gRPC

METHOD = "/test.Model/Predict"


@pytest.fixture
def model():
    """A gRPC service that refuses the second of three calls."""
    answers = iter([b"answer", None, b"answer"])

    def predict(request, context):
        answer = next(answers)
        if answer is None:
            context.set_trailing_metadata((("retry-after", "0.05"),))
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Quota exceeded")
        return answer

    handler = grpc.method_handlers_generic_handler(
        "test.Model", {"Predict": grpc.unary_unary_rpc_method_handler(predict)}
    )
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_grpc_is_admitted_learned_from_and_settled(model, limiter, books):
    paced = shown("Paced")(
        limiter, lambda request: {"model": "m", "tokens": len(request)}, lambda answer: {"tokens": 300}
    )
    with grpc.insecure_channel(model) as plain:
        predict = grpc.intercept_channel(plain, paced).unary_unary(METHOD)
        assert predict(b"x" * 140) == b"answer"
        assert books.settled() == {"requests": 1, "tokens": 300}
        with pytest.raises(grpc.RpcError) as raised:
            predict(b"x" * 140)
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (books.bucket.admitted, books.bucket.refused) == (2, 1)
        assert predict(b"x" * 140) == b"answer"
    assert (books.bucket.admitted, books.bucket.in_flight) == (3, 0)
