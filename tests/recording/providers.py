"""Where each provider is asked, with which key and which model. A new one is a row here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Provider:
    """`key` is the variable of the environment that holds the key; `api` the shape of a request.

    `bound` names the most tokens that the answer may have.
    """

    base_url: str
    key: str
    model: str
    api: str = "openai"
    bound: str = "max_tokens"

    @property
    def path(self) -> str:
        return "/v1/messages" if self.api == "anthropic" else "/chat/completions"

    def headers(self, key: str) -> dict[str, str]:
        if self.api == "anthropic":
            return {"x-api-key": key, "anthropic-version": "2023-06-01"}
        return {"authorization": f"Bearer {key}"}

    def body(self, model: str, *, stream: bool) -> dict[str, object]:
        """The shortest chat there is."""
        body: dict[str, object] = {
            "model": model,
            self.bound: 16,
            "messages": [{"role": "user", "content": "Hello"}],
        }
        if stream:
            body["stream"] = True
            if self.api == "openai":
                body["stream_options"] = {"include_usage": True}
        return body


PROVIDERS = {
    "anthropic": Provider(
        "https://api.anthropic.com", "ANTHROPIC_API_KEY", "claude-haiku-4-5", api="anthropic"
    ),
    "cerebras": Provider("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY", "llama3.1-8b"),
    "cohere": Provider("https://api.cohere.ai/compatibility/v1", "COHERE_API_KEY", "command-r7b-12-2024"),
    "deepseek": Provider("https://api.deepseek.com", "DEEPSEEK_API_KEY", "deepseek-chat"),
    "fireworks": Provider(
        "https://api.fireworks.ai/inference/v1",
        "FIREWORKS_API_KEY",
        "accounts/fireworks/models/llama-v3p1-8b-instruct",
    ),
    "gemini": Provider(
        "https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY", "gemini-2.5-flash-lite"
    ),
    "github-models": Provider("https://models.github.ai/inference", "GITHUB_TOKEN", "openai/gpt-4o-mini"),
    "groq": Provider("https://api.groq.com/openai/v1", "GROQ_API_KEY", "llama-3.1-8b-instant"),
    "huggingface": Provider(
        "https://router.huggingface.co/v1", "HF_TOKEN", "meta-llama/Llama-3.1-8B-Instruct"
    ),
    "mistral": Provider("https://api.mistral.ai/v1", "MISTRAL_API_KEY", "mistral-small-latest"),
    "moonshot": Provider("https://api.moonshot.ai/v1", "MOONSHOT_API_KEY", "moonshot-v1-8k"),
    "nvidia-nim": Provider(
        "https://integrate.api.nvidia.com/v1", "NVIDIA_API_KEY", "meta/llama-3.1-8b-instruct"
    ),
    "openai": Provider(
        "https://api.openai.com/v1", "OPENAI_API_KEY", "gpt-4o-mini", bound="max_completion_tokens"
    ),
    "openrouter": Provider(
        "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", "meta-llama/llama-3.3-70b-instruct:free"
    ),
    "perplexity": Provider("https://api.perplexity.ai", "PERPLEXITY_API_KEY", "sonar"),
    "sambanova": Provider("https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY", "Meta-Llama-3.1-8B-Instruct"),
    "together": Provider(
        "https://api.together.xyz/v1", "TOGETHER_API_KEY", "meta-llama/Llama-3.3-70B-Instruct-Turbo"
    ),
    "xai": Provider("https://api.x.ai/v1", "XAI_API_KEY", "grok-3-mini"),
}
