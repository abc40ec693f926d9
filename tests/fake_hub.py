"""A model hub on loopback: the three endpoints that huggingface_hub's snapshot_download uses."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """`repos` maps a repository's id to its files; a gated one wants `token` for its files."""

    url: str
    repos: Mapping[str, Mapping[str, bytes]]
    gated: frozenset[str] = frozenset()
    token: str = "hf_secret"
    cut_after: int | None = None  # bytes of a file after which the connection breaks
    status: int | None = None  # answers everything with this
    downloads: list[str] = field(default_factory=list)


@contextmanager
def fake_hub(
    repos: Mapping[str, Mapping[str, bytes]], gated: frozenset[str] = frozenset()
) -> Iterator[FakeHub]:
    hub = FakeHub("", repos, gated)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            _answer(hub, self)

        def do_HEAD(self) -> None:
            _answer(hub, self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(hub: FakeHub, request: BaseHTTPRequestHandler) -> None:
    path = request.path.partition("?")[0].strip("/")
    if hub.status is not None:
        return _send(request, hub.status, b"{}")
    repo = next((repo for repo in hub.repos if f"{repo}/" in f"{path}/"), None)
    if repo is None:
        # the real Hub does not tell whether a repository is private or not there
        return _send(request, 401, b"{}", {"X-Error-Code": "RepoNotFound"})
    files = hub.repos[repo]
    if path == f"api/models/{repo}/revision/main":
        info = {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
        return _send(request, 200, json.dumps(info).encode())
    if path == f"api/models/{repo}/tree/{COMMIT}":
        tree = [
            {"type": "file", "path": name, "size": len(body), "oid": _etag(body)}
            for name, body in files.items()
        ]
        return _send(request, 200, json.dumps(tree).encode())
    name = path.removeprefix(f"{repo}/resolve/{COMMIT}/")
    if name not in files:
        return _send(request, 404, b"{}", {"X-Error-Code": "EntryNotFound"})
    if repo in hub.gated and request.headers.get("Authorization") != f"Bearer {hub.token}":
        return _send(request, 403, b"{}", {"X-Error-Code": "GatedRepo"})
    body = files[name]
    headers = {"ETag": f'"{_etag(body)}"', "X-Repo-Commit": COMMIT}
    if request.command == "GET":
        hub.downloads.append(name)
    return _send(request, 200, body, headers, hub.cut_after)


def _etag(body: bytes) -> str:
    return hashlib.sha1(body, usedforsecurity=False).hexdigest()


def _send(
    request: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    cut_after: int | None = None,
) -> None:
    request.send_response(status)
    for name, value in (headers or {}).items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(body[:cut_after])
        if cut_after is not None:
            request.close_connection = True
