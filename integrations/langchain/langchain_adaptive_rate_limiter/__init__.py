"""Adaptive rate limiting for LangChain."""
