"""Why a reply refuses and when to come back: wordings of every provider, and variations of them."""

import json

import pytest

from adaptive_rate_limiter.providers import parse_response

DATE = "Tue, 18 Mar 2025 10:39:14 GMT"
NOW = 1_742_294_354
ZAI = "https://api.z.ai/api/paas/v4/chat/completions"
GOOGLE = "You exceeded your current quota, please check your plan and billing details."


def refusal(body, *, status=429, headers=None, url=None):
    told = parse_response({"date": DATE, **(headers or {})}, body, status, url=url).refusal
    return told and (told.kind.value, told.retry_after, told.retryable, told.unit)


def message(text, **more):
    return {"error": {"message": text, **more}}


def google(text, *quotas, delay=None):
    violations = [{"quotaId": name, "quotaValue": value} for name, value in quotas]
    details = (
        [{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations}] if quotas else []
    )
    if delay:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
    return {"error": {"code": 429, "message": text, "status": "RESOURCE_EXHAUSTED", "details": details}}


RATE_LIMITS = {  # body: (retry_after, unit)
    "openai rpm": (
        message(
            "Rate limit reached for gpt-4 on requests per min (RPM): Limit 3, Used 3, Requested 1."
            " Please try again in 20s. You can increase your rate limit by adding a payment method."
        ),
        20,
        "requests",
    ),
    "openai ms": (message("on tokens per min (TPM): Limit 9, Used 8, Requested 2. Please try again in 174ms."), 0.174, "tokens"),
    "openai images": (message("Rate limit exceeded for images per minute. Limit: 5/1min. Current: 6/1min."), None, "images"),
    "azure calls": (
        message("Requests to X have exceeded call rate limit of your OpenAI S0 tier. Please retry after 3 seconds.", code="429"),
        3,
        "requests",
    ),
    "azure tokens": (
        {"message": "Your requests to gpt-4 have exceeded the token rate limit. Please retry after 45 seconds."},
        45,
        "tokens",
    ),
    "azure gateway": (message("Rate limit is exceeded. Try again in 2 seconds."), 2, None),
    "anthropic": (
        {
            "type": "error",
            "error": {
                "type": "rate_limit_error",
                "message": "This request would exceed your rate limit of 80,000 output tokens per minute."
                " Please reduce the prompt length or the maximum tokens requested, or try again later.",
            },
        },
        None,
        "output_tokens",
    ),
    "anthropic account": (message("This request would exceed your account's rate limit. Please try again later."), None, None),
    "groq used above limit": (
        message("on tokens per minute (TPM): Limit 5000, Used 5747, Requested ~4251. Please try again in 59.977s."),
        59.977,
        "tokens",
    ),
    "gemini, the finer of two": (
        google(GOOGLE + "\nPlease retry in 48.9399s.", ("GenerateInputTokensPerModelPerMinute", "1000"), delay="48s"),
        48.9399,
        "input_tokens",
    ),
    "gemini, details only": (google(GOOGLE, ("GenerateRequestsPerMinutePerProject", "15"), delay="26s"), 26, "requests"),
    "gemini, an array": (json.dumps([google(GOOGLE, ("RequestsPerMinute", "15"), delay="26s")]), 26, "requests"),
    "gemini, bare": (google(GOOGLE), None, None),
    "gemini, a word for a code": (message("Resource has been exhausted (e.g. check quota).", code="too_many_requests"), None, None),
    "vertex": (
        message(
            "Quota exceeded for aiplatform.googleapis.com/online_prediction_input_tokens_per_minute_per_base_model",
            status="RESOURCE_EXHAUSTED",
        ),
        None,
        "input_tokens",
    ),
    "bedrock": ({"message": "Too many tokens, please wait before trying again."}, None, "tokens"),
    "github models": (
        message("Rate limit of 40000 per 60s exceeded for UserByModelByMinuteTokens. Please wait 60 seconds before retrying."),
        60,
        "tokens",
    ),
    "cohere": ({"message": "You are using a Trial key, which is limited to 10 API calls / minute. Upgrade to a"}, None, "requests"),
    "cerebras": ("Tokens per minute limit exceeded - too many tokens processed.", None, "tokens"),
    "cerebras, quota by code": (
        {"message": "Requests per minute limit exceeded", "code": "request_quota_exceeded"},
        None,
        "requests",
    ),
    "xai": ("Your team's rate limit is — Tokens per Minute (actual/limit): 65605/16000.", None, "tokens"),
    "moonshot": (message("request reached organization max RPM: 20, please try again after 1 seconds"), 1, "requests"),
    "replicate": (
        {
            "detail": "Request was throttled. Your rate limit is reduced to 6 requests per minute while you have"
            " less than $5.0 in credit. Your rate limit resets in ~5s.",
            "status": 429,
            "retry_after": 5,
        },
        5,
        "requests",
    ),
    "openrouter free a minute": (
        message("Rate limit exceeded: free-models-per-min. Add 10 credits to unlock 1000 requests per day"),
        None,
        "requests",
    ),
    "together": (message("The maximum rate limit for this model is 9.0 queries per minute."), None, "requests"),
    "siliconflow": ({"message": "Request was rejected due to rate limiting. Details: TPM limit reached."}, None, "tokens"),
    "mistral": ({"message": "Rate limit exceeded", "type": "rate_limited", "code": "1300"}, None, None),
    "fireworks": ({"error": "Too Many Requests", "message": "Please contact Fireworks for dedicated capacity."}, None, None),
    "problem details": ({"status": 429, "title": "Too Many Requests"}, None, None),
    "zhipu": ({"error": {"code": "1302", "message": "您的账户已达到速率限制, 请您控制请求频率"}}, None, "requests"),
    "chinese wait": ({"code": "429", "msg": "请求过于频繁, 请在 30 秒后重试"}, 30, None),
    "voyage": ({"detail": "You have not yet added your payment method and have rate limits of 3 RPM and 10K TPM."}, None, "requests"),
    "camel-case field": ({"error": "slow down", "retryAfter": 12.5}, 12.5, None),
    "field in ms": ({"error": {"retry_after_ms": 250}}, 0.25, None),
    "delay as an object": ({"retry_delay": {"seconds": 48}}, 48, None),
    "instant": (message("try again", resets_at=NOW + 90), 90, None),
    "body inside a message": (message(json.dumps(message("Please try again in 1m2s."))), 62, None),
    "itpm": (message("Rate limit reached (ITPM). Please slow down."), None, "input_tokens"),
    "otpm": (message("Rate limit reached (OTPM)."), None, "output_tokens"),
    "words": ("Please wait for about 1 minute and 30 seconds.", 90, None),
    "django": ({"detail": "Request was throttled. Expected available in 831.0 seconds."}, 831, None),
    "no number": ("Please try again in a few minutes.", None, None),
    "nothing": (None, None, None),
    "damaged": ('{"error": {"message": "Please try again in 20s', 20, None),
}  # fmt: skip


@pytest.mark.parametrize(("body", "wait", "unit"), RATE_LIMITS.values(), ids=RATE_LIMITS)
def test_pace_is_a_rate_limit(body, wait, unit):
    assert refusal(body) == ("rate_limit", wait and pytest.approx(wait), True, unit)


OTHERS = {  # status, body: (kind, retry_after, retryable)
    "openai spent money": (429, message(GOOGLE, type="insufficient_quota", code="insufficient_quota"), "quota_exhausted", None, False),
    "openai spent money, text only": (429, message(GOOGLE), "quota_exhausted", None, False),
    "openai a day": (429, message("on requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again in 7m12s."), "quota_exhausted", 432, True),
    "groq a day": (429, message("on tokens per day (TPD): Limit 100000, Used 98321, Requested 4000. Please try again in 33m25.34s."), "quota_exhausted", 2005.34, True),
    "a month under a minute's name": (429, message("on tokens per min (TPM): Limit 100000, Used 96749, Requested 19126. Please try again in 114h18m0s."), "quota_exhausted", 411480, True),
    "azure a day for a minute": (429, {"message": "exceeded token rate limit. Please retry after 86400 seconds."}, "quota_exhausted", 86400, True),
    "anthropic spend limit": (400, message("You have reached your specified API usage limits. You will regain access on 2025-04-01 at 00:00 UTC."), "quota_exhausted", 1_743_465_600 - NOW, True),
    "anthropic credit": (400, message("Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing."), "quota_exhausted", None, False),
    "xai credits": (429, "Your team has either used all available credits or reached its monthly spending limit.", "quota_exhausted", None, False),
    "xai credits, 403": (403, {"code": "permission-denied", "error": "Your team has used all available credits."}, "quota_exhausted", None, False),
    "deepseek balance": (402, message("Insufficient Balance"), "quota_exhausted", None, False),
    "payment required": (402, None, "quota_exhausted", None, False),
    "a code that is a number": (429, {"error": {"code": 1113, "count": 3}}, "quota_exhausted", None, False),
    "zhipu balance": (429, {"error": {"code": "1113", "message": "您的账户已欠费, 请充值后重试。"}}, "quota_exhausted", None, False),
    "hugging face credits": (402, {"error": "You have exceeded your monthly included credits for Inference Providers."}, "quota_exhausted", None, False),
    "cohere a month": (429, {"message": "You are using a Trial key, which is limited to 1000 API calls / month."}, "quota_exhausted", None, True),
    "bedrock a day": (429, {"message": "Too many tokens per day, please wait before trying again."}, "quota_exhausted", None, True),
    "gemini a day, whatever the delay": (429, google(GOOGLE + " Please retry in 36.4s.", ("RequestsPerDayPerProject", "20"), delay="36s"), "quota_exhausted", None, True),
    "gemini minute and day": (429, google(GOOGLE, ("RequestsPerMinute", "15"), ("RequestsPerDay", "1500"), delay="20s"), "quota_exhausted", None, True),
    "moonshot a day": (429, message("request reached organization TPD rate limit, current: 1526210, limit: 1500000"), "quota_exhausted", None, True),
    "ollama session": (429, "you (x) have reached your session usage limit, please wait or upgrade to continue", "quota_exhausted", None, True),
    "codex": (429, message("The usage limit has been reached", type="usage_limit_reached", resets_in_seconds=9568, resets_at=NOW + 9999), "quota_exhausted", 9568, True),
    "openrouter free a day": (429, message("Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day", code=429), "quota_exhausted", None, True),
    "sixteen hours in words": (429, "resets in 16 hours, 12 minutes and 3 seconds", "quota_exhausted", 58323, True),
    "openai one request too large": (429, message("Request too large for gpt-4.1 on tokens per min (TPM): Limit 30000, Requested 37313. The input or output tokens must be reduced"), "request_too_large", None, False),
    "groq too large, with a vain wait": (429, message("Rate limit reached on tokens per minute (TPM): Limit 7000, Used 6148, Requested 7895. Please try again in 1m0.36s."), "request_too_large", None, False),
    "thousands commas": (429, message("tokens per min: Limit 30,000, Requested 1,037,313."), "request_too_large", None, False),
    "groq 413": (413, message("Request too large on tokens per minute (TPM): Limit 6000, Requested 6523", code="rate_limit_exceeded"), "request_too_large", None, False),
    "plain 413": (413, "Payload Too Large", "request_too_large", None, False),
    "gemini limit zero": (429, google("Quota exceeded for metric: x_free_tier_requests, limit: 0\nPlease retry in 45.2s.", delay="45s"), "not_entitled", None, False),
    "gemini quota of zero, a number": (429, google(GOOGLE, ("RequestsPerMinute", 0)), "not_entitled", None, False),
    "gemini quota of zero": (429, google(GOOGLE, ("RequestsPerDay", "0"), delay="45s"), "not_entitled", None, False),
    "anthropic extra usage": (429, message("Extra usage is required for long context requests.", type="rate_limit_error"), "not_entitled", None, False),
    "opencode client": (429, message("OpenCode's free tier can only be used from within OpenCode", type="FreeTierError"), "not_entitled", None, False),
    "plain 403": (403, None, "not_entitled", None, False),
    "zhipu plan": (429, {"error": {"code": "1311", "message": "当前订阅套餐不支持该模型"}}, "not_entitled", None, False),
    "openai jobs": (429, message("has been rate-limited. Your organization has reached the maximum of 3 active requests (2 running, 1 pending)", code="rate_limit_exceeded"), "concurrency", None, True),
    "anthropic connections": (429, message("Number of concurrent connections has exceeded your rate limit."), "concurrency", None, True),
    "moonshot at once": (429, message("request reached max organization concurrency: 1, please try again after 1 seconds"), "concurrency", 1, True),
    "elevenlabs at once": (429, {"detail": {"status": "too_many_concurrent_requests"}}, "concurrency", None, True),
    "github at once": (429, message("Rate limit of 2 per 0s exceeded for UserConcurrentRequests. Please wait 0 seconds before retrying."), "concurrency", 0, True),
    "zhipu at once": (429, {"error": {"code": "1302", "message": "您当前使用该API的并发数过高, 请降低并发"}}, "concurrency", None, True),
    "anthropic overloaded": (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "overload", None, True),
    "moonshot engine": (429, message("The engine is currently overloaded, please try again later", type="engine_overloaded_error"), "overload", None, True),
    "cerebras traffic": (429, {"message": "We're experiencing high traffic right now!", "type": "too_many_requests_error", "code": "queue_exceeded"}, "overload", None, True),
    "mistral capacity": (429, {"message": "Service tier capacity exceeded for this model.", "code": "3505"}, "overload", None, True),
    "vertex shared pool": (429, message("Resource exhausted. Please try again later. See https://cloud.google.com/error-code-429", status="RESOURCE_EXHAUSTED"), "overload", None, True),
    "openrouter upstream": (429, message("Provider returned error", code=429, metadata={"raw": "x:free is temporarily rate-limited upstream. Please retry shortly"}), "overload", None, True),
    "elevenlabs busy": (429, {"detail": {"status": "system_busy"}}, "overload", None, True),
    "zhipu busy": (429, {"error": {"code": "1305", "message": "该模型当前访问量过大, 请您稍后再试"}}, "overload", None, True),
    "gemini busy": (503, message("The model is overloaded. Please try again later.", status="UNAVAILABLE"), "overload", None, True),
    "a proxy": (503, "upstream connect error or disconnect/reset before headers", "overload", None, True),
    "groq flex": (498, None, "overload", None, True),
    "aws throttle under another status": (400, {"__type": "ThrottlingException", "message": "Rate exceeded"}, "rate_limit", None, True),
    "siliconflow, unverified": (403, {"message": "RPM limit exceeded. Please complete identity verification"}, "rate_limit", None, True),
    "dashscope's free quota": (403, {"code": "AllocationQuota.FreeTierOnly", "message": "The free tier of the model has been exhausted."}, "quota_exhausted", None, True),
    "volcengine's overdue account": (403, message("Forbidden", code="AccountOverdueError"), "quota_exhausted", None, False),
    "no credit at all": (403, {"error": "Your newly created team doesn't have any credits or licenses yet."}, "quota_exhausted", None, False),
    "google's old 403": (403, message("User Rate Limit Exceeded", errors=[{"reason": "userRateLimitExceeded"}]), "rate_limit", None, True),
}  # fmt: skip


@pytest.mark.parametrize(("status", "body", "kind", "wait", "retryable"), OTHERS.values(), ids=OTHERS)
def test_other_refusals_are_told_apart(status, body, kind, wait, retryable):
    assert refusal(body, status=status)[:3] == (kind, wait and pytest.approx(wait), retryable)


@pytest.mark.parametrize("as_text", [json.dumps, lambda body: json.dumps(body).encode(), lambda body: [body]])
def test_the_wrapping_of_a_body_does_not_matter(as_text):
    body = message("on requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again in 7m12s.")
    assert refusal(as_text(body)) == refusal(body) == ("quota_exhausted", 432, True, "requests")


NO_REFUSALS = {
    "a hint to poll": (200, {"retry-after": "10"}, None),
    "a text about rate limits": (200, {}, "Rate limit exceeded. Please try again in 20s."),
    "a completion about rate limits": (
        200,
        {},
        {"choices": [{"message": {"content": "rate limit exceeded"}}]},
    ),
    "an empty error": (200, {}, {"error": None}),
    "an error of another kind": (200, {}, {"error": {"type": "invalid_request_error", "message": "no"}}),
    "bad credentials": (401, {}, {"error": "Invalid username or password."}),
    "no such model": (404, {}, message("The model `x` does not exist or you do not have access to it.")),
    "too long a context": (
        400,
        {},
        message("maximum context length is 8192 tokens", code="context_length_exceeded"),
    ),
    "a broken server": (500, {}, "Internal Server Error"),
}


@pytest.mark.parametrize(("status", "headers", "body"), NO_REFUSALS.values(), ids=NO_REFUSALS)
def test_what_is_no_refusal(status, headers, body):
    assert refusal(body, status=status, headers=headers) is None


IN_A_SUCCESS = {
    "anthropic's stream": (
        'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n',
        "overload",
        None,
    ),
    "a status in text": ({"error": {"code": "429", "message": "no"}}, "rate_limit", None),
    "openrouter": ({"error": {"code": 429, "message": "Please try again in 3s."}}, "rate_limit", 3),
    "a rate limit by its type": (
        {"type": "error", "error": {"type": "rate_limit_error"}},
        "rate_limit",
        None,
    ),
    "codex, with its headers in the body": (
        {
            "type": "error",
            "status_code": 429,
            "error": {"type": "usage_limit_reached"},
            "headers": {
                "X-Codex-Primary-Used-Percent": "100",
                "X-Codex-Primary-Window-Minutes": "300",
                "X-Codex-Primary-Reset-After-Seconds": "9569",
            },
        },
        "quota_exhausted",
        9569,
    ),
}


@pytest.mark.parametrize(("body", "kind", "wait"), IN_A_SUCCESS.values(), ids=IN_A_SUCCESS)
def test_an_error_may_come_inside_a_success(body, kind, wait):
    assert refusal(body, status=200)[:2] == (kind, wait)


BY_HEADERS = {
    "retry-after": ({"retry-after": "7"}, "rate_limit", 7),
    "the finer of two": ({"retry-after": "6", "retry-after-ms": "5432"}, "rate_limit", 5.432),
    "a zero beside more": ({"retry-after": "6", "retry-after-ms": "0"}, "rate_limit", 6),
    "a zero alone, as told": ({"retry-after": "0"}, "rate_limit", 0),
    "hours are no pace": ({"retry-after": "54749"}, "quota_exhausted", 54749),
    "github models": ({"x-ratelimit-timeremaining": "44", "x-ratelimit-type": "UserByModelByMinute"}, "rate_limit", 44),
    "github models, a day": ({"retry-after": "73192", "x-ratelimit-type": "UserByModelByDay"}, "quota_exhausted", 73192),
    "nothing left, with a reset": (
        {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "12s", "x-ratelimit-reset-tokens": "50s"},
        "rate_limit",
        12,
    ),
    "nothing left, without a reset": ({"x-ratelimit-limit-req-minute": "4", "x-ratelimit-remaining-req-minute": "0"}, "rate_limit", None),
    "something left: its reset is no wait": ({"x-ratelimit-remaining-requests": "9", "x-ratelimit-reset-requests": "12s"}, "rate_limit", None),
    "nothing left of a day": (
        {"x-ratelimit-limit-requests-day": "9", "x-ratelimit-remaining-requests-day": "0", "x-ratelimit-reset-requests-day": "900"},
        "quota_exhausted",
        900,
    ),
    "anthropic: the halves, not their sum": (
        {
            "anthropic-ratelimit-tokens-remaining": "0",
            "anthropic-ratelimit-tokens-reset": "2025-03-18T10:39:16Z",
            "anthropic-ratelimit-input-tokens-remaining": "0",
            "anthropic-ratelimit-input-tokens-reset": "2025-03-18T10:39:35Z",
        },
        "rate_limit",
        21,
    ),
    "anthropic subscription, another refusal": ({"anthropic-ratelimit-unified-status": "allowed_warning"}, "rate_limit", None),
    "of several spent limits the last to return": (
        {
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "12s",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": "3s",
        },
        "rate_limit",
        12,
    ),
    "anthropic subscription": (
        {"anthropic-ratelimit-unified-status": "rejected", "anthropic-ratelimit-unified-reset": str(NOW + 5646)},
        "quota_exhausted",
        5646,
    ),
    "codex": ({"x-codex-primary-used-percent": "100", "x-codex-primary-reset-after-seconds": "471285"}, "quota_exhausted", 471285),
    "aws": ({"x-amzn-ErrorType": "ThrottlingException:http://internal.amazon.com/coral/"}, "rate_limit", None),
    "hugging face": ({"ratelimit": '"api";r=0;t=55', "ratelimit-policy": '"fixed window";"api";q=500;w=300'}, "rate_limit", 55),
    "a header that names another limit than the one that refuses": (
        {"retry-after": "20", "x-ratelimit-limit-requests": "200", "x-ratelimit-remaining-requests": "196", "x-ratelimit-reset-requests": "21m36.001s"},
        "rate_limit",
        20,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("headers", "kind", "wait"), BY_HEADERS.values(), ids=BY_HEADERS)
def test_headers_alone_tell_a_refusal(headers, kind, wait):
    assert refusal(None, headers=headers)[:2] == (kind, wait and pytest.approx(wait))


WAITS = {
    "Try again in 12 seconds.": 12, "Please retry after 12s": 12, "retry after 12": 12, "Retrying in about 12 sec": 12,
    "The model is available in 12 s": 12, "Limit resets in 12s.": 12, "quota renews after 12 seconds": 12, "refills in ~12s": 12,
    "Please wait another 12 seconds": 12, "wait at least 12 s": 12, "retry-after: 12": 12, "retry_delay: 12s": 12, "12 秒之后重试": 12,
    "locked until 2025-03-18T10:39:26Z": 12, "renews 2025-03-18 10:39:26 UTC": 12, "try again at 2025-03-18 11:39:26 +0100": 12,
    "available at 2025-03-18T10:39Z": None, "After 3 attempts we gave up": None, "wait 12 apples": None, "in 12 seconds": None,
}  # fmt: skip


@pytest.mark.parametrize(("text", "wait"), WAITS.items(), ids=WAITS)
def test_a_wait_in_a_sentence(text, wait):
    expected = 0 if text.startswith("available at") else wait  # the minute that has begun is past
    assert refusal(text)[:2] == ("rate_limit", expected)


MONEY = [
    "insufficient balance", "Insufficient funds.", "You have insufficient credits", "Your credit balance is too low", "balance is negative",
    "out of credits", "you have no credits", "requires more credits", "used all credits", "You have depleted your monthly included credits",
    "ran out of free credits", "Credits have been exhausted", "credits expired", "spending limit reached", "Billing hard limit has been reached",
    "billing not active", "Your account is not active", "Payment required", "Credit limit exceeded", "余额不足",
]  # fmt: skip


@pytest.mark.parametrize("text", MONEY)
def test_spent_money_is_cured_by_no_wait(text):
    assert refusal(text + ". Try again in 9s.")[:3] == ("quota_exhausted", None, False)


BARRED = [
    "You do not have access to this model", "may only be used with the official client", "This model is not available on your plan",
    "not supported in this tier", "your plan does not include it", "the free tier doesn't support it", "It doesn't have a free quota tier",
    "requires a paid subscription", "Your subscription has expired", "unauthorized client", "You are not authorized to use it",
    "Version 1.18.0 or newer is required",
]  # fmt: skip


@pytest.mark.parametrize("text", BARRED)
def test_a_key_without_the_right_is_cured_by_no_wait(text):
    assert refusal(text + ". Try again in 9s.")[:3] == ("not_entitled", None, False)


WINDOWED = [
    "hourly usage limit", "session limit", "weekly limit", "monthly usage quota", "daily quota", "The usage limit has been reached",
    "limit of 9 requests per 24 hours", "5-hour limit", "每天", "9 RPD", "the last 30 days", "100 per week",
]  # fmt: skip


@pytest.mark.parametrize("text", WINDOWED)
def test_a_window_of_hours_is_a_quota(text):
    assert refusal(f"You hit it: {text}")[:3] == ("quota_exhausted", None, True)


ADVICE = [
    "Upgrade to get 1000 requests per day.", "Add 10 credits to unlock 1000 per day!", "You can buy a daily plan.", "Visit us monthly.",
    "Contact sales for weekly limits.", "For more, see the monthly plan", "Please refer to the daily limits.", "Subscribe for 9 RPD.",
    "To continue, take the monthly plan.", "Need more tokens per day?", "Consider our weekly plan.", "See daily limits.",
]  # fmt: skip


@pytest.mark.parametrize("text", ADVICE)
def test_advice_names_other_limits_than_the_one_that_was_hit(text):
    assert refusal(f"Rate limit of 9 images per minute exceeded. {text}") == (
        "rate_limit",
        None,
        True,
        "images",
    )


@pytest.mark.parametrize("text", [
    "at capacity", "The service is temporarily unavailable", "We are experiencing high traffic", "server is busy", "out of capacity",
    "Capacity constraints", "heavy load", "unusually high demand", "overloaded", "系统繁忙",
])  # fmt: skip
def test_the_providers_own_trouble_is_overload(text):
    assert refusal(text)[:3] == ("overload", None, True)


def test_zoneless_time_counts_where_the_zone_is_known():
    body = message(
        "Usage limit reached for 5 hour. Your limit will reset at 2025-03-18 20:38:28", code="1308"
    )
    assert refusal(body, url=ZAI) == ("quota_exhausted", 7154, True, None)
    assert refusal(body, url="https://example.org/v1") == ("quota_exhausted", None, True, None)
    chinese = message("已达到 5 小时的使用上限。您的限额将在 2025-03-18 20:38:28 重置。", code="1308")
    assert refusal(chinese, url=ZAI) == ("quota_exhausted", 7154, True, None)


def test_limits_inside_a_body_are_readings_with_the_window_that_it_names():
    headers = {
        "X-RateLimit-Limit": "50",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": str((NOW + 60) * 1000),
    }
    body = message("Rate limit exceeded: free-models-per-day.", code=429, metadata={"headers": headers})
    info = parse_response({"date": DATE}, body, 429)
    assert [(q.unit, q.limit, q.remaining, q.reset_after, q.window) for q in info.quotas] == [
        ("requests", 50, 0, 60, 86400)
    ]
    assert info.refusal.retry_after == 60
