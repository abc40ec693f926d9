"""Text to token ids and back. Pure CPU, no torch."""
