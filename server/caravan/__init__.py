"""Caravan serves Meta's Llama 4 to every OpenAI client."""

__version__ = "0.1.0"
