"""The HTTP edge: OpenAI JSON in, JSON or server-sent events out. Never imports torch."""
