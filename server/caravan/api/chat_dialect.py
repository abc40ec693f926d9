"""Choices as chat writes them: messages and deltas, with the tool calls found in the text."""

from __future__ import annotations

import secrets
from collections import defaultdict

from caravan.api.answer import Json
from caravan.api.choices import AskedPrompt, Piece
from caravan.api.logprobs import chat_logprobs, prompt_logprobs
from caravan.api.schema.chat import ChatBody
from caravan.api.toolset import Toolset
from caravan.text.tokenizer import Tokenizer
from caravan.text.tool_calls import CallStart, Event, Text, ToolCallParser, ToolKind

# Of each kind of tool: the field with what the model gives it.
_GIVEN = {"function": "arguments", "custom": "input"}


class ChatDialect:
    """Choices with messages and deltas."""

    id_prefix = "chatcmpl-"
    object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(
        self, tokenizer: Tokenizer, body: ChatBody, tools: Toolset | None, prompt: AskedPrompt
    ) -> None:
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._logprobs = body.logprobs
        self._prompt_logprobs = body.prompt_logprobs
        self._token_ids = body.return_token_ids
        self._named = tools is not None and tools.choice == "named"
        self._calls = None if tools is None else defaultdict[int, _Calls](lambda: _Calls(tools))
        self.only_text = tools is None and not body.logprobs and not body.return_token_ids

    def beside(self) -> Json:
        """What the client asked about the prompt."""
        fields: Json = {}
        if self._token_ids:
            fields["prompt_token_ids"] = self._prompt.tokens
        if self._prompt_logprobs is not None:
            listed = self._prompt.listed()
            fields["prompt_logprobs"] = prompt_logprobs(
                self._tokenizer, listed, self._prompt_logprobs
            )
        return fields

    def opening(self, index: int) -> Json:
        """The role; SDKs add deltas up, so it comes once."""
        return {
            "index": index,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }

    def chunk(self, piece: Piece) -> Json | None:
        """A delta: text, parts of calls, the end."""
        delta = self._said(piece)
        listed = self._logprobs and piece.tokens
        if not delta and not piece.finish and not listed:
            return None
        return {
            "index": piece.index,
            "delta": delta,
            "logprobs": chat_logprobs(self._tokenizer, piece.tokens) if listed else None,
            "finish_reason": self._finish_reason(piece),
            **self._ids(piece),
        }

    def whole(self, piece: Piece) -> Json:
        """A message."""
        said = self._said(piece)
        content = said.get("content", None if "tool_calls" in said else "")
        calls = [
            {name: value for name, value in call.items() if name != "index"}
            for call in said.get("tool_calls", ())
        ]
        message = {"role": "assistant", "content": content, "refusal": None}
        return {
            "index": piece.index,
            "message": {**message, "tool_calls": calls} if calls else message,
            "logprobs": chat_logprobs(self._tokenizer, piece.tokens) if self._logprobs else None,
            "finish_reason": self._finish_reason(piece),
            **self._ids(piece),
        }

    def _said(self, piece: Piece) -> Json:
        if self._calls is None:
            return {"content": piece.text} if piece.text else {}
        return self._calls[piece.index].read(piece)

    def _finish_reason(self, piece: Piece) -> str | None:
        """OpenAI's: a call that was the client's own choice is no reason."""
        if piece.finish != "stop" or self._calls is None or self._named:
            return piece.finish
        return "tool_calls" if self._calls[piece.index].kinds else "stop"

    def _ids(self, piece: Piece) -> Json:
        return {"token_ids": piece.token_ids} if self._token_ids else {}


class _Calls:
    """The tool calls of one choice, as its text arrives."""

    def __init__(self, tools: Toolset) -> None:
        self.kinds: list[ToolKind] = []
        self._parser = ToolCallParser(tools.callable, enforced=tools.exact)

    def read(self, piece: Piece) -> Json:
        """What is new, as the fields `content` and `tool_calls` of a delta."""
        events = self._parser.push(piece.text)
        if piece.finish:
            events += self._parser.finish(cut=piece.finish == "length")
        content = "".join(event.text for event in events if isinstance(event, Text))
        calls = self._entries(events)
        return {
            **({"content": content} if content else {}),
            **({"tool_calls": list(calls.values())} if calls else {}),
        }

    def _entries(self, events: list[Event]) -> dict[int, Json]:
        """One entry for each call, by its index; id, type and name only where it begins."""
        entries: dict[int, Json] = {}
        for event in events:
            if isinstance(event, Text):
                continue
            if isinstance(event, CallStart):
                kind = event.tool.kind
                self.kinds.append(kind)
                entries[event.index] = {
                    "index": event.index,
                    "id": "call_" + secrets.token_hex(12),
                    "type": kind,
                    kind: {"name": event.tool.name, _GIVEN[kind]: ""},
                }
                continue
            kind = self.kinds[event.index]
            entry = entries.setdefault(
                event.index, {"index": event.index, kind: {_GIVEN[kind]: ""}}
            )
            entry[kind][_GIVEN[kind]] += event.text
        return entries
