"""A played chat server behind httpx, and a screen and keys that a test looks at."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpx
from rich.console import Console

from caravan.cli.chat_client import ChatClient
from caravan.cli.chat_commands import ChatLoop
from caravan.cli.chat_conversation import Conversation
from caravan.cli.chat_images import Part
from caravan.cli.chat_keyboard import Keyboard
from caravan.cli.chat_screen import Screen

URL = "http://127.0.0.1:8000"
DONE = b"data: [DONE]\n\n"

Reply = httpx.Response | Exception


def event(data: object) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def said(text: str, finish: str | None = None) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]})


def usage(num_tokens: int) -> bytes:
    return event({"choices": [], "usage": {"completion_tokens": num_tokens}})


def whole(text: str, finish: str = "stop") -> list[bytes]:
    """An answer as servers send it, one event for a character."""
    return [*map(said, text), said("", finish), usage(len(text)), DONE]


class Stream(httpx.SyncByteStream):
    """Chunks of a body; an exception among them is raised."""

    def __init__(self, *chunks: bytes | BaseException) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk


def streamed(*chunks: bytes | BaseException) -> httpx.Response:
    headers = {"content-type": "text/event-stream; charset=utf-8"}
    return httpx.Response(200, headers=headers, stream=Stream(*chunks))


def refused(status: int, message: str, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers=named, json={"error": {"message": message}})


class Output(io.StringIO):
    """A terminal, or a file."""

    is_terminal = True

    def isatty(self) -> bool:
        return self.is_terminal


class Played:
    """Answers chat requests with the scripted replies, in order."""

    def __init__(self, *replies: Reply, models: Iterable[Reply] = ()) -> None:
        self.requests: list[httpx.Request] = []
        self.slept: list[float] = []
        self.output = Output()
        self.notes = io.StringIO()
        self.screen = Screen(self.output, Console(file=self.notes, width=1000))
        self._replies = iter(replies)
        self._models = iter(models)
        self._seconds = iter(range(10_000))  # the clock ticks once a look

    def client(
        self, *, url: str = URL, key: str | None = None, model: str | None = None, **sampling: float
    ) -> ChatClient:
        return ChatClient(
            url,
            key,
            model,
            sampling,
            notify=self.screen.note,
            transport=httpx.MockTransport(self._answer),
            sleep=self.slept.append,
            clock=lambda: float(next(self._seconds)),
        )

    @property
    def shown(self) -> str:
        """The answers of a conversation: without the end of the line in which Ctrl-D was typed."""
        text = self.output.getvalue()
        assert text.endswith("\n"), text
        return text[:-1]

    def talk(
        self,
        *lines: str | type[BaseException],
        system: str | None = None,
        images: Iterable[Part] = (),
        client: ChatClient | None = None,
        typed: Callable[[], str] = str,
    ) -> Conversation:
        """Types the lines, then Ctrl-D."""
        keys = iter([*lines, EOFError])

        def read_line(prompt: str) -> str:
            line = next(keys)
            if isinstance(line, str):
                return line
            raise line

        conversation = Conversation(client or self.client(), self.screen, system, list(images))
        ChatLoop(conversation, self.screen).run(Keyboard(self.screen, read_line, typed))
        return conversation

    @property
    def bodies(self) -> list[dict[str, Any]]:
        posts = [request for request in self.requests if request.method == "POST"]
        return [json.loads(request.content) for request in posts]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.path.endswith("/v1/models"):
            listed = httpx.Response(200, json={"data": [{"id": "first"}, {"id": "second"}]})
            reply = next(self._models, listed)
        else:
            assert request.url.path.endswith("/v1/chat/completions"), request.url
            reply = next(self._replies)
        if isinstance(reply, Exception):
            raise reply
        return reply
