"""API keys. Every path needs one, but for a short list: a route nobody thought of is closed.

The path is `scope["path"]`, which the router matches too. `request.url` is rebuilt from the
client's Host header and once let clients talk their way past such checks (CVE-2026-48710).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence, Set

from starlette.types import ASGIApp, Receive, Scope, Send

from caravan.errors import InvalidApiKey

# Probes and scrapers carry no keys. /metrics tells how busy the server is, never what it was asked.
PUBLIC_PATHS = frozenset({"/health", "/ready", "/version", "/metrics"})


class Authentication:
    """ASGI middleware: raises InvalidApiKey unless the request has one of the keys.

    `public`: the paths that need none.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str], public: Set[str] = PUBLIC_PATHS) -> None:
        self._app = app
        self._public = public
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets through what may pass."""
        if scope["type"] == "http" and scope["path"] not in self._public:
            self._require_key(scope)
        await self._app(scope, receive, send)

    def _require_key(self, scope: Scope) -> None:
        headers = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(headers) != 1:
            raise InvalidApiKey("Send your API key in one header: `Authorization: Bearer KEY`.")
        scheme, _, key = headers[0].partition(b" ")
        digest = hashlib.sha256(key.strip()).digest()
        # All keys are compared, each in constant time: the clock tells nothing about any of them.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if scheme.lower() != b"bearer" or not any(matches):
            raise InvalidApiKey("The API key is not valid.")
