"""Client-side rate limiter for LLM APIs: learns the provider's limits and fills them without being refused."""
