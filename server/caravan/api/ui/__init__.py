"""GET /: a page to chat with the model, from files beside this one.

    /           index.html
    /ui/NAME    its style, its modules, its icon

What is served is the list below, read once and kept; no path of a request becomes a path of a file.
The page loads nothing from elsewhere and talks to this server only, which its headers enforce.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

INDEX: Final = "index.html"
MODULES: Final = (
    "answer", "api", "composer", "dom", "main", "markdown", "messages", "pictures",
    "request", "samples", "settings", "snippets", "sse", "status", "theme",
)  # fmt: skip
MEDIA_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
FILES: Final = {
    "/": INDEX,
    "/ui/style.css": "style.css",
    "/ui/messages.css": "messages.css",
    "/ui/icon.svg": "icon.svg",
    **{f"/ui/{name}.js": f"{name}.js" for name in MODULES},
}
PATHS: Final = frozenset(FILES)

CONTENT_SECURITY_POLICY: Final = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # The page makes nodes, never markup: text of the model cannot become any, even by mistake.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)
HEADERS: Final = {
    "Cache-Control": "no-cache",  # asked for again each time, so that an upgrade shows at once
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file's bytes, and the headers that go with them."""

    content: bytes
    headers: dict[str, str]

    @classmethod
    def read(cls, name: str) -> StaticFile:
        """From this package, wherever it is installed."""
        content = resources.files(__name__).joinpath(name).read_bytes()
        headers = {
            **HEADERS,
            "Content-Type": MEDIA_TYPES[name.rpartition(".")[2]],
            "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        }
        return cls(content, headers)

    def answer(self, if_none_match: Iterable[str]) -> Response:
        """All of it, or 304 if the client has it."""
        tag = self.headers["ETag"]
        known = {
            item.strip().removeprefix("W/") for line in if_none_match for item in line.split(",")
        }
        if tag in known or "*" in known:
            headers = {name: self.headers[name] for name in (*HEADERS, "ETag")}
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=self.headers)


def new_router() -> APIRouter:
    """Routes to all files, which are read now; the description of the API leaves them out."""
    files = {path: StaticFile.read(name) for path, name in FILES.items()}

    async def static_file(request: Request) -> Response:
        return files[request.scope["path"]].answer(request.headers.getlist("if-none-match"))

    router = APIRouter()
    for path in files:
        router.add_api_route(path, static_file, methods=["GET", "HEAD"], include_in_schema=False)
    return router
