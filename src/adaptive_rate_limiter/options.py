"""What a caller says of a call and of a limiter: checked, and turned into a `Call` of the core."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, get_args

from adaptive_rate_limiter.core.charging import MOST, NUMBERS
from adaptive_rate_limiter.core.estimate import guess_tokens
from adaptive_rate_limiter.core.queue import Call
from adaptive_rate_limiter.core.quota import INPUT_TOKENS, OUTPUT_TOKENS, REQUESTS, TOKENS, Quota, quotas_from
from adaptive_rate_limiter.exceptions import ConfigurationError

if TYPE_CHECKING:
    from adaptive_rate_limiter.core.bucket import Bucket
    from adaptive_rate_limiter.core.quota import Cost

__all__ = ["CallOptions"]


Eagerness: TypeAlias = Literal["never", "unseen", "always"]


class CallOptions(TypedDict, total=False):
    """What may be said of a call; `Limiter.acquire` tells what each means."""

    input_tokens: float | None
    output_tokens: float | None
    max_tokens: float | None
    prompt: Any
    units: Mapping[str, float] | None
    tenant: str
    priority: float
    timeout: float | None
    estimated: bool


class WorkOptions(TypedDict, total=False):
    """What may be said of calls to come; `Limiter.forecast` tells what each means."""

    requests: float | None
    tokens: float | None
    input_tokens: float | None
    output_tokens: float | None


def call_from(
    core: Bucket,
    now: float,
    longest: float | None,
    model: str | None,
    tokens: Any,
    /,
    *,
    input_tokens: Any = None,
    output_tokens: Any = None,
    max_tokens: Any = None,
    prompt: Any = None,
    units: Any = None,
    tenant: Any = "",
    priority: Any = 0,
    timeout: Any = None,
    estimated: Any = False,
    **unknown: object,
) -> Call:
    """The call that `core` is asked to admit; `longest` is `max_wait`. Nobody has checked the `CallOptions` yet.

    Raises ConfigurationError naming the argument and its value.
    """
    if unknown:
        raise unknown_argument("acquire", unknown, ("model", "tokens", "route", *CallOptions.__annotations__))
    if input_tokens is not None:
        input_tokens = amount("input_tokens", input_tokens)
    if output_tokens is not None:
        output_tokens = amount("output_tokens", output_tokens)
    if max_tokens is not None:
        max_tokens = amount("max_tokens", max_tokens)
    guessed = 0.0
    if tokens is not None:
        cost = _stated(amount("tokens", tokens), input_tokens, output_tokens)
    elif prompt is not None:
        guessed = guess_tokens(prompt, model) if input_tokens is None else input_tokens
        read, answered = core.estimator.expected(guessed, None, output_tokens, max_tokens)
        cost = core.charging.hold(read, answered, max_tokens)
        estimated = True
    elif estimated and input_tokens is output_tokens is max_tokens is None:
        cost = core.charging.hold(*core.estimator.usual(), None)
    elif estimated or input_tokens is None or output_tokens is None:
        guessed = input_tokens if estimated and input_tokens is not None else 0.0
        read, answered = core.estimator.expected(guessed, input_tokens, output_tokens, max_tokens)
        cost = core.charging.hold(read, answered, max_tokens)
        estimated = estimated or output_tokens is max_tokens is None
    else:
        cost = core.charging.hold(input_tokens, output_tokens, max_tokens)
    if units:
        cost = {**cost, **{unit: amount(f"units[{unit!r}]", value) for unit, value in units.items()}}
    if tenant or priority:
        _check_order(tenant, priority)
    deadline = None if timeout is None and longest is None else _deadline(now, timeout, longest)
    return Call(
        cost, since=now, tenant=tenant, priority=priority, deadline=deadline, certain=not estimated,
        guessed=guessed, max_tokens=max_tokens,
    )  # fmt: skip


def work_from(
    *,
    requests: Any = None,
    tokens: Any = None,
    input_tokens: Any = None,
    output_tokens: Any = None,
    **unknown: object,
) -> Cost:
    """What many calls take together. Raises ConfigurationError naming the argument and its value."""
    if unknown:
        raise unknown_argument("forecast", unknown, ("model", *WorkOptions.__annotations__))
    given = {
        REQUESTS: requests, TOKENS: tokens, INPUT_TOKENS: input_tokens, OUTPUT_TOKENS: output_tokens,
    }  # fmt: skip
    told = {unit: amount(unit, much) for unit, much in given.items() if much is not None}
    into, out = told.get(INPUT_TOKENS), told.get(OUTPUT_TOKENS)
    if TOKENS not in told:
        told[TOKENS], into = (into or 0.0) + (out or 0.0), into or 0.0
    return {**_stated(told[TOKENS], into, out), REQUESTS: told.get(REQUESTS, 0.0)}


def _stated(tokens: float, input_tokens: float | None, output_tokens: float | None) -> Cost:
    return {
        REQUESTS: 1.0,
        TOKENS: tokens,
        INPUT_TOKENS: tokens if input_tokens is None else input_tokens,
        OUTPUT_TOKENS: 0.0 if output_tokens is None else output_tokens,
    }


def _deadline(now: float, timeout: Any, max_wait: float | None) -> float | None:
    longest = math.inf if timeout is None else seconds("timeout", timeout)
    if max_wait is not None and max_wait < longest:
        longest = max_wait
    return None if longest == math.inf else now + longest


def _check_order(tenant: object, priority: object) -> None:
    if not isinstance(tenant, str):
        raise ConfigurationError(f"tenant must be a name, got {tenant!r}")
    if not abs(_number(priority)) < math.inf:
        raise ConfigurationError(f"priority must be a finite number, got {priority!r}")


def amount(name: str, value: Any) -> float:
    """`value`, if it is a finite number of at least 0."""
    if type(value) in NUMBERS and 0 <= value <= MOST:
        return value  # type: ignore[no-any-return]  # it is one of the two
    number = _number(value)
    if not 0 <= number < math.inf:
        raise ConfigurationError(f"{name} must be a finite number of at least 0, got {value!r}")
    return number


def _number(value: object) -> float:
    """Nan if it is none, and inf if it is too large for a float."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def seconds(name: str, value: Any) -> float:
    """`value`, if it is a number of seconds of at least 0; inf means without bound."""
    number = _number(value)
    if not number >= 0:
        raise ConfigurationError(f"{name} must be seconds, at least 0, got {value!r}")
    return number


def interval(name: str, value: Any) -> float:
    """`value`, if it is a number of seconds above 0."""
    if not 0 < seconds(name, value) < math.inf:
        raise ConfigurationError(f"{name} must be seconds, above 0, got {value!r}")
    return float(value)


def unknown_argument(who: str, given: Mapping[str, object], known: tuple[str, ...]) -> ConfigurationError:
    name, value = next(iter(given.items()))
    return ConfigurationError(f"{who} has no argument {name!r} (given {value!r}); it has {', '.join(known)}")


def check_weights(weights: Any) -> dict[str, float]:
    """Shares by tenant."""
    if weights is None:
        return {}
    if not isinstance(weights, Mapping):
        raise ConfigurationError(f"weights must map tenants to numbers, got {weights!r}")
    for tenant, weight in weights.items():
        if not 0 < _number(weight) < math.inf:
            raise ConfigurationError(f"weights[{tenant!r}] must be a positive number, got {weight!r}")
    return dict(weights)


def check_concurrency(most: Any, name: str = "max_concurrency") -> int | None:
    """Calls in flight at once; None for any number."""
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise ConfigurationError(f"{name} must be a whole number of at least 1, got {most!r}")
    return most


def check_eager(when: Any) -> Eagerness:
    """When calls go as they come, where nothing tells a limit."""
    allowed = get_args(Eagerness)
    if when not in allowed:
        raise ConfigurationError(f"eager must be one of {', '.join(allowed)}, got {when!r}")
    return when  # type: ignore[no-any-return]  # it is one of them


def check_headroom(part: Any) -> float:
    """The part of a limit that is left unused."""
    if not 0 <= _number(part) < 1:
        raise ConfigurationError(f"headroom must be a number from 0 to below 1, got {part!r}")
    return float(part)


def quotas_by_model(quotas: Any) -> tuple[tuple[Quota, ...], dict[str, tuple[Quota, ...]]]:
    """Quotas of every model, and of models by name."""
    if isinstance(quotas, Mapping) and quotas and all(_is_quotas(value) for value in quotas.values()):
        return (), {model: quotas_from(given) for model, given in quotas.items()}
    return quotas_from(quotas), {}


def _is_quotas(value: object) -> bool:
    return isinstance(value, (Quota, Mapping, list, tuple))
