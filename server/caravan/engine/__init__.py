"""The engine process, and the handle the API holds on it."""
