"""What `make dist` tries where only the built distributions are installed: every package, with nothing of this tree."""

import importlib.metadata
import importlib.resources
import threading

import httpx
from llama_index.core.llms import MockLLM

import adaptive_rate_limiter
from adaptive_rate_limiter import Limiter, cli
from adaptive_rate_limiter.http import AdaptiveTransport
from adaptive_rate_limiter.testing import ProviderEmulator
from langchain_adaptive_rate_limiter import AdaptiveLimiter
from llama_index.llms.adaptive_rate_limiter import AdaptiveLLM

DISTRIBUTIONS = {
    "adaptive-rate-limiter": "adaptive_rate_limiter",
    "langchain-adaptive-rate-limiter": "langchain_adaptive_rate_limiter",
    "llama-index-llms-adaptive-rate-limiter": "llama_index.llms.adaptive_rate_limiter",
}

versions = {importlib.metadata.version(name) for name in DISTRIBUTIONS}
assert len(versions) == 1, versions
for package in DISTRIBUTIONS.values():
    assert (importlib.resources.files(package) / "py.typed").is_file(), package
assert "site-packages" in adaptive_rate_limiter.__file__

# By hand, and by LangChain's limiter.
limiter = Limiter(quotas={"requests": 60})
with limiter.acquire("gpt-4o", tokens=10) as reservation:
    reservation.settle(tokens=10)
assert AdaptiveLimiter(limiter).acquire(blocking=False)

# LlamaIndex.
assert AdaptiveLLM(llm=MockLLM(), limiter=limiter).complete("Hello").text == "Hello"

# Any SDK on httpx, against the emulator.
message = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
with ProviderEmulator(requests_per_minute=600, burst=1) as provider:
    transport = AdaptiveTransport()
    with httpx.Client(transport=transport) as client:

        def ask(_number: int) -> int:
            return client.post(f"{provider.base_url}/chat/completions", json=message).status_code

        assert transport.limiter.map(ask, range(20)).run().results() == [200] * 20
    assert provider.stats().refused == 0
assert "told by headers" in transport.limiter._repr_html_()

assert cli.main(["forecast", "--requests", "120", "--rpm", "60"]) == 0
print(f"version {versions.pop()}: all three work, on {threading.active_count()} threads")
