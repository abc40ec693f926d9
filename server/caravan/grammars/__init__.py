"""Output that is held to a JSON schema, a regular expression, a grammar, or calls of tools."""
