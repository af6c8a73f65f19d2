import asyncio
import json
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from adaptive_rate_limiter.testing import ProviderEmulator

QUICK = {"latency": 0.0}


def body(prompt="hello", model="gpt-4o", **more):
    return {"model": model, "messages": [{"role": "user", "content": prompt}], **more}


@pytest.fixture
def client():
    with httpx.Client(timeout=10) as client:
        yield client


def chat(client, emulator, *args, **kwargs):
    return client.post(f"{emulator.url}/v1/chat/completions", json=body(*args, **kwargs))


def test_it_leaves_no_thread_and_frees_its_port(client):
    before = threading.active_count()
    with ProviderEmulator(**QUICK) as emulator:
        port = emulator.port
        assert chat(client, emulator).status_code == 200
    assert threading.active_count() == before
    assert emulator.stats().admitted == 1
    with pytest.raises(RuntimeError, match="enter it"):
        _ = emulator.url
    with ProviderEmulator(port=port, **QUICK) as again:
        assert again.base_url == f"http://127.0.0.1:{port}/v1"
        with pytest.raises(RuntimeError, match="already"):
            again.start()
    again.stop()


def test_a_taken_port_is_told_at_once():
    with (
        ProviderEmulator() as first,
        pytest.raises(OSError, match=r"[Aa]ddress"),
        ProviderEmulator(port=first.port),
    ):
        pass


async def test_it_is_an_async_context_manager_too():
    async with ProviderEmulator(**QUICK) as emulator, httpx.AsyncClient() as client:
        answers = await asyncio.gather(
            *(client.post(f"{emulator.base_url}/chat/completions", json=body()) for _ in range(20))
        )
    assert {answer.status_code for answer in answers} == {200}


def test_it_stops_at_once_with_requests_in_flight():
    with ThreadPoolExecutor(1) as pool:
        with ProviderEmulator(latency=30.0) as emulator:
            pending = pool.submit(
                httpx.post, f"{emulator.base_url}/chat/completions", json=body(), timeout=20
            )
            while not emulator.stats().in_flight:
                time.sleep(0.001)
            started = time.monotonic()
        assert pending.result().status_code == 200
        assert time.monotonic() - started < 2


def test_any_prefix_of_a_path_will_do(client):
    with ProviderEmulator(**QUICK) as emulator:
        assert client.post(f"{emulator.url}/some/proxy/chat/completions", json=body()).is_success
        assert client.get(f"{emulator.url}/v1/models").json()["data"]
        assert emulator.stats().requests == 1


@pytest.mark.parametrize(("provider", "kind"), [("openai", "error"), ("anthropic", "type")])
def test_what_it_does_not_understand_is_refused_in_form(client, provider, kind):
    with ProviderEmulator(provider, **QUICK) as emulator:
        lost = client.get(f"{emulator.url}/v1/files")
        broken = client.post(f"{emulator.url}/v1/chat/completions", content=b"{")
        empty = client.post(f"{emulator.url}/v1/messages", json={})
        assert [answer.status_code for answer in (lost, broken, empty)] == [404, 400, 400]
        assert all(kind in answer.json() for answer in (lost, broken, empty))
        assert emulator.stats().admitted == 0


def test_the_limit_is_exact_under_a_storm():
    with ProviderEmulator(requests_per_minute=50, algorithm="fixed_window", **QUICK) as emulator:

        async def storm():
            async with httpx.AsyncClient(limits=httpx.Limits(max_connections=20)) as client:
                url = f"{emulator.base_url}/chat/completions"
                return await asyncio.gather(*(client.post(url, json=body()) for _ in range(120)))

        codes = [answer.status_code for answer in asyncio.run(storm())]
        assert (codes.count(200), codes.count(429)) == (50, 70)
        stats = emulator.stats()
        assert (stats.requests, stats.admitted, stats.refused) == (120, 50, 70)
        assert stats.refused_by == {"requests": 70}
        assert [event.kind for event in stats.timeline].count("refused") == 70
        assert stats.lower_bound == emulator.lower_bound() == 0


def test_tokens_are_charged_up_front_and_not_given_back(client):
    with ProviderEmulator(tokens_per_minute=1000, algorithm="sliding_window", **QUICK) as emulator:
        assert (
            chat(client, emulator, "x" * 400, max_tokens=700).headers["x-ratelimit-remaining-tokens"] == "200"
        )
        assert chat(client, emulator, "x" * 400, max_tokens=101).status_code == 429
        assert chat(client, emulator, "x" * 401).headers["x-ratelimit-remaining-tokens"] == str(
            200 - 101 - 16
        )
        assert emulator.stats().charged["tokens"] == 917


def test_tokens_are_charged_by_usage(client):
    terms = {"algorithm": "sliding_window", "output_tokens": 300, **QUICK}
    with ProviderEmulator("groq", tokens_per_minute=500, **terms) as emulator:
        first = chat(client, emulator, "x" * 400, max_tokens=5000)
        assert first.headers["x-ratelimit-remaining-tokens"] == "400"  # at admission
        assert emulator.stats().remaining["tokens"] == 100
        assert chat(client, emulator, "x" * 4).is_success  # its output leaves a debt
        assert chat(client, emulator, "x" * 4).status_code == 429
        assert emulator.stats().charged["output_tokens"] == 600


def test_headers_are_stamped_at_the_reply_on_demand(client):
    terms = {"algorithm": "sliding_window", "output_tokens": 300, "stamp": "reply", **QUICK}
    with ProviderEmulator("groq", tokens_per_minute=500, **terms) as emulator:
        assert chat(client, emulator, "x" * 400).headers["x-ratelimit-remaining-tokens"] == "100"


def test_concurrency_is_capped_and_a_finished_call_frees_its_slot_at_once():
    with ProviderEmulator(max_concurrency=3, latency=0.1) as emulator:
        url = f"{emulator.base_url}/chat/completions"

        async def calls():
            async with httpx.AsyncClient() as client:
                first = await asyncio.gather(*(client.post(url, json=body()) for _ in range(5)))
                followers = [await client.post(url, json=body()) for _ in range(3)]
                return [answer.status_code for answer in (*first, *followers)]

        codes = asyncio.run(calls())
        stats = emulator.stats()
    assert sorted(codes[:5]) == [200, 200, 200, 429, 429]
    assert codes[5:] == [200] * 3
    assert (stats.refused_by, stats.concurrency_peak, stats.in_flight) == ({"concurrency": 2}, 3, 0)


def outcome(client, emulator):
    try:
        return chat(client, emulator).status_code
    except (httpx.RemoteProtocolError, httpx.ReadError):
        return "cut"


def test_a_script_of_faults_is_followed_by_arrival(client):
    faults = [None, 500, "drop_before", 503, "drop_after", 529]
    with ProviderEmulator(requests_per_minute=60, faults=faults, **QUICK) as emulator:
        seen = [outcome(client, emulator) for _ in range(7)]
        assert seen == [200, 500, "cut", 503, "cut", 529, 200]
        stats = emulator.stats()
        assert (stats.admitted, stats.faults, stats.in_flight) == (3, 5, 0)
        assert stats.charged["requests"] == 3


def test_faults_by_chance_repeat_with_the_seed(client):
    def run(seed):
        with ProviderEmulator(faults={500: 0.3, "503": 0.2}, seed=seed, **QUICK) as emulator:
            return [chat(client, emulator).status_code for _ in range(40)]

    assert run(1) == run(1) != run(2)
    assert {200, 500, 503} == set(run(1))


def test_faults_by_decision(client):
    def second_only(call):
        return 500 if call.index == 1 else None

    with ProviderEmulator(faults=second_only, **QUICK) as emulator:
        assert [chat(client, emulator).status_code for _ in range(3)] == [200, 500, 200]


@pytest.mark.parametrize(
    "wrong",
    [
        {"provider": "nobody"},
        {"algorithm": "leaky", "requests_per_minute": 1},
        {"requests_per_minute": 0},
        {"faults": [404]},
        {"faults": {"oops": 0.1}},
        {"faults": {500: 0.7, 503: 0.7}},
        {"strangers": 1.0, "tokens_per_minute": 1},
    ],
)
def test_a_wrong_option_fails_at_construction(wrong):
    with pytest.raises(ValueError):
        ProviderEmulator(**wrong)


def test_limits_change_while_it_runs(client):
    with ProviderEmulator(requests_per_minute=2, algorithm="fixed_window", **QUICK) as emulator:
        assert [chat(client, emulator).status_code for _ in range(3)] == [200, 200, 429]
        emulator.set_limits(requests_per_minute=4, tokens_per_minute=100)
        answer = chat(client, emulator)
        assert answer.headers["x-ratelimit-remaining-requests"] == "1"
        assert answer.headers["x-ratelimit-limit-tokens"] == "100"
        emulator.set_limits(requests_per_minute=1)
        assert chat(client, emulator).status_code == 429
        with pytest.raises(TypeError, match="requests_per_hour"):
            emulator.schedule(1, requests_per_hour=3)


def test_limits_change_on_schedule(client):
    with ProviderEmulator(requests_per_minute=2, algorithm="fixed_window", **QUICK) as emulator:
        emulator.schedule(at=0.05, requests_per_minute=1000)
        assert [chat(client, emulator).status_code for _ in range(2)] == [200, 200]
        while emulator.stats().remaining["requests"] == 0:
            time.sleep(0.005)
        assert chat(client, emulator).headers["x-ratelimit-limit-requests"] == "1000"


def test_limits_may_be_per_model(client):
    with ProviderEmulator(
        requests_per_minute=1, algorithm="fixed_window", per_model=True, **QUICK
    ) as emulator:
        codes = [chat(client, emulator, model=model).status_code for model in ("a", "b", "a")]
        assert codes == [200, 200, 429]
        assert emulator.stats().remaining == {"a/requests": 0, "b/requests": 0}


def test_slices_refuse_though_plenty_remains(client):
    terms = {"requests_per_minute": 60, "slice_seconds": 10, "aligned": True, **QUICK}
    with ProviderEmulator("azure", **terms) as emulator:
        answers = [chat(client, emulator) for _ in range(11)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert emulator.stats().refused_by == {"requests_slice": 1}
        assert int(refused[0].headers["x-ratelimit-remaining-requests"]) >= 49
        assert int(refused[0].headers["retry-after"]) <= 10


def test_strangers_lower_what_remains(client):
    with ProviderEmulator(
        requests_per_minute=1000, window=0.2, strangers=0.5, algorithm="sliding_window"
    ) as emulator:
        chat(client, emulator)
        time.sleep(0.25)  # a whole window in which nobody but strangers sent
        assert 400 < emulator.stats().remaining["requests"] < 600


def test_a_window_passes(client):
    with ProviderEmulator(requests_per_minute=3, window=0.3, **QUICK) as emulator:
        done, waits = 0, 0
        while done < 9:
            answer = chat(client, emulator)
            done += answer.is_success
            if not answer.is_success:
                waits += 1
                time.sleep(int(answer.headers["retry-after-ms"]) / 1000)
        stats = emulator.stats()
    assert waits <= 7
    assert stats.lower_bound == pytest.approx(0.6)
    assert stats.lower_bound <= stats.last_admitted_at < stats.lower_bound + 0.2


@pytest.mark.parametrize("latency", [0.05, (0.05, 0.06), lambda call: 0.05 if call.model == "gpt-4o" else 0])
def test_latency(client, latency):
    with ProviderEmulator(latency=latency) as emulator:
        for stream in (False, True):
            started = time.monotonic()
            chat(client, emulator, stream=stream)
            assert 0.05 <= time.monotonic() - started < 5.0  # of milliseconds, 50 s would be asked


def test_it_can_be_asked_over_http(client):
    with ProviderEmulator(requests_per_minute=60, **QUICK) as emulator:
        chat(client, emulator)
        assert client.get(f"{emulator.url}/emulator/stats").json()["admitted"] == 1
        assert client.post(f"{emulator.url}/emulator/limits", json={"requests_per_minute": 7}).is_success
        assert client.post(f"{emulator.url}/emulator/limits", json={"oops": 7}).status_code == 400
        assert chat(client, emulator).headers["x-ratelimit-limit-requests"] == "7"


def test_run_serves_until_interrupted():
    answers = []

    def once(emulator):
        request = urllib.request.Request(f"{emulator.url}/v1/chat/completions", json.dumps(body()).encode())
        with urllib.request.urlopen(request) as answer:
            answers.append(answer.status)
        raise KeyboardInterrupt

    emulator = ProviderEmulator(**QUICK)
    emulator.run(once)
    assert answers == [200]
    with pytest.raises(RuntimeError):
        _ = emulator.port


def test_the_fixture_starts_as_many_as_wanted(provider_emulator, client):
    first, second = provider_emulator("openai", **QUICK), provider_emulator("azure", **QUICK)
    assert chat(client, first).is_success
    assert chat(client, second).is_success
    assert first.port != second.port
