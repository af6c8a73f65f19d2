"""Estimates, charging, quotas and the account."""

import math
import random
import sys
import types

import pytest

from adaptive_rate_limiter.core.charging import ANTHROPIC, AZURE, GENERIC, OPENAI, Usage, charging_for
from adaptive_rate_limiter.core.estimate import Estimator, Quantile, guess_tokens
from adaptive_rate_limiter.core.quota import Quota, quotas_from
from adaptive_rate_limiter.exceptions import ConfigurationError


@pytest.mark.parametrize("sigma", [0.3, 1.0])
def test_one_in_ten_runs_over_the_estimate(sigma):
    rng = random.Random(1)
    quantile = Quantile(256.0)
    missed = 0
    for _ in range(5000):
        seen = rng.lognormvariate(6, sigma)
        missed += seen > quantile.value
        quantile.learn(seen)
    assert missed / 5000 == pytest.approx(0.1, abs=0.015)


def test_one_in_ten_runs_over_even_where_usage_drifts():
    quantile = Quantile(1.0)
    missed = 0
    for step in range(5000):
        seen = 100.0 * (2 + math.sin(step / 200))
        missed += seen > quantile.value
        quantile.learn(seen)
    assert missed / 5000 == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("nonsense", [0.0, -1.0, math.nan, math.inf])
def test_nonsense_teaches_nothing(nonsense):
    quantile = Quantile(5.0)
    quantile.learn(nonsense)
    assert (quantile.value, quantile.count) == (5.0, 0)


def test_the_estimator_learns_input_and_output():
    estimator = Estimator()
    assert (estimator.expected(10), estimator.expected(10, max_tokens=16)) == ((10, 256), (10, 16))
    for _ in range(50):
        estimator.learn(100.0, 150.0, 20.0)
    read, answered = estimator.expected(100)
    assert 140 <= read <= 170
    assert 15 <= answered <= 30
    estimator.learn(0.0, 5.0, None)


@pytest.mark.parametrize(
    ("told", "usual"),
    [
        ((30.0, 12.0, 42.0), (30.0, 12.0)),
        ((None, None, 42.0), (42.0, 0.0)),
        ((None, 12.0, 42.0), (30.0, 12.0)),
        ((30.0, None, None), (30.0, 0.0)),
        ((None, None, None), (0.0, 0.0)),
    ],
)
def test_the_estimator_knows_a_call_of_which_nothing_is_known(told, usual):
    estimator = Estimator()
    assert estimator.usual() == (0.0, 0.0)
    estimator.learn(0.0, *told)
    assert estimator.usual() == usual


class Text:
    pass


@pytest.mark.parametrize(
    ("content", "tokens"),
    [
        ("", 0),
        ("twelve chars", 3),
        (b"twelve chars", 3),
        (None, 0),
        (True, 0),
        ([1, 2, 3], 3),
        ({"role": "user", "content": "hello"}, 3),
        ([{"type": "image_url", "image_url": "x" * 1000}], 800),
        (Text(), 0),
    ],
)
def test_a_guess_at_tokens(content, tokens):
    assert guess_tokens(content) == tokens


def test_a_tokenizer_in_memory_is_used(monkeypatch):
    encoding = types.SimpleNamespace(encode_ordinary=lambda text: text.split())

    def name(model):
        if model != "known":
            raise KeyError(model)
        return "words"

    monkeypatch.setitem(
        sys.modules, "tiktoken.registry", types.SimpleNamespace(ENCODINGS={"words": encoding})
    )
    monkeypatch.setitem(sys.modules, "tiktoken.model", types.SimpleNamespace(encoding_name_for_model=name))
    assert guess_tokens("four words of text", "known") == 4
    assert guess_tokens("four words of text", "unknown") == 5
    assert guess_tokens("four words of text") == 5


@pytest.mark.parametrize(
    ("url", "habit"),
    [
        ("https://x.openai.azure.com/openai/deployments/d/chat/completions", AZURE),
        ("https://api.anthropic.com/v1/messages", ANTHROPIC),
        ("https://api.openai.com/v1/chat/completions", OPENAI),
        ("https://api.groq.com/openai/v1/chat/completions", GENERIC),
        ("https://example.org/", GENERIC),
        (None, GENERIC),
    ],
)
def test_whose_habit(url, habit):
    assert charging_for(url) is habit


@pytest.mark.parametrize(
    ("habit", "usage", "max_tokens", "tokens", "inputs"),
    [
        (GENERIC, Usage(), None, 300, 100),
        (GENERIC, Usage(90, 10), None, 100, 90),
        (GENERIC, Usage(tokens=120), None, 120, 100),
        (OPENAI, Usage(90, 10), 500, 600, 90),
        (OPENAI, Usage(90, 10), None, 100, 90),
        (ANTHROPIC, Usage(90, 10, cached_tokens=80), None, 20, 10),
    ],
)
def test_what_a_call_has_cost(habit, usage, max_tokens, tokens, inputs):
    held = habit.hold(100, 200, max_tokens)
    charged = habit.charge(usage, held, max_tokens)
    assert (charged["tokens"], charged["input_tokens"], charged["requests"]) == (tokens, inputs, 1)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, True, "60", None])
@pytest.mark.parametrize("name", ["limit", "window", "burst"])
def test_a_quota_names_the_argument_and_the_value(name, value):
    if name == "burst" and value is None:
        assert Quota("requests", 60, burst=None).burst is None
        return
    with pytest.raises(ConfigurationError, match=rf"quota\.{name} .*{value!r}"):
        Quota(**{"unit": "requests", "limit": 60, name: value})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"unit": "", "limit": 1}, "quota.unit"),
        ({"unit": 5, "limit": 1}, "quota.unit"),
        ({"unit": "requests"}, "quota.limit is missing"),
        ({"limit": 5}, "quota.unit is missing"),
        ({"unit": "requests", "limit": 1, "per": 60}, "no field 'per'"),
        ({"unit": "requests", "limit": 1, "algorithm": "leaky"}, "quota.algorithm .*'leaky'"),
        ("60 per minute", "quotas must be .*60 per minute"),
        (5, "quotas must be"),
    ],
)
def test_a_wrong_quota_says_what_is_wrong(given, message):
    with pytest.raises(ConfigurationError, match=message):
        quotas_from(given)


def test_quotas_are_read_from_every_form():
    one = Quota("requests", 60)
    assert quotas_from(None) == ()
    assert quotas_from(one) == (one,)
    assert quotas_from({"requests": 60, "tokens": 1000}) == (one, Quota("tokens", 1000))
    assert quotas_from([{"unit": "requests", "limit": 60}, one]) == (one, one)
