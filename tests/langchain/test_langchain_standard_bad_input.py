"""Replies that are none: the SDK says so as it does without a limiter, and nothing is left in flight."""

import httpx
import pytest
from langchain_openai import ChatOpenAI

EVENT = b'data: {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o", "choices": [{"index": 0, "delta": {"content": "one"}}]}\n\n'


class Cut(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Breaks after its first event."""

    def __iter__(self):
        yield EVENT
        raise httpx.RemoteProtocolError("cut")

    async def __aiter__(self):
        yield EVENT
        raise httpx.RemoteProtocolError("cut")


def _page(_):
    return httpx.Response(200, headers={"content-type": "text/html"}, content=b"<html>gateway</html>")


def _cut(_):
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Cut())


@pytest.fixture
def model(client, async_client, limiter):
    """A model whose provider answers with `reply`, with a limiter or without."""

    def build(reply, *, limited=True):
        client._transport = async_client._transport = httpx.MockTransport(reply)
        return ChatOpenAI(
            model="gpt-4o", api_key="k", max_retries=0, http_client=client, http_async_client=async_client,
            rate_limiter=limiter if limited else None,
        )  # fmt: skip

    return build


def _raised(call):
    with pytest.raises(Exception) as raised:
        call()
    return type(raised.value), str(raised.value)


def test_a_reply_that_is_no_json(model, bucket_of):
    bare, limited = (_raised(lambda on=on: model(_page, limited=on).invoke("hello")) for on in (False, True))
    assert limited == bare
    assert (bucket_of().admitted, bucket_of().in_flight) == (1, 0)


def test_a_stream_cut_in_the_middle(model, bucket_of):
    bare, limited = (
        _raised(lambda on=on: list(model(_cut, limited=on).stream("hello"))) for on in (False, True)
    )
    assert limited == bare
    assert (bucket_of().admitted, bucket_of().in_flight) == (1, 0)


async def test_a_stream_cut_in_the_middle_in_async(model, bucket_of):
    async def ending(on):
        said = []
        try:
            async for chunk in model(_cut, limited=on).astream("hello"):
                said.append(chunk.text)  # noqa: PERF401 - what came before the error counts
        except Exception as error:  # noqa: BLE001 - the SDK's own
            return "".join(said), type(error)
        return None

    said, error = await ending(True)
    assert (said, error) == await ending(False)
    assert said == "one"
    assert (bucket_of().admitted, bucket_of().in_flight) == (1, 0)
