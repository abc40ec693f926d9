"""Asks a server, through OpenAI's client, as its users do."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import openai
from PIL import Image

from demo_training.dialogue import Part, Turn
from eval.questions import Question, is_right

_AT_ONCE = 8
_MAX_TOKENS = 200


@dataclass(frozen=True, slots=True)
class Answered:
    """A question and what came back."""

    question: Question
    text: str
    calls: list[tuple[str, str]]

    @property
    def right(self) -> bool:
        """Whether it is as expected."""
        return is_right(self.question, self.text, self.calls)


def ask_all(client: openai.OpenAI, questions: Sequence[Question]) -> list[Answered]:
    """Asks some at a time; the answers are in the questions' order."""
    model = client.models.list().data[0].id
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda question: _ask(client, model, question), questions))


def _ask(client: openai.OpenAI, model: str, question: Question) -> Answered:
    options: dict[str, Any] = dict(question.options)
    if question.dialogue.tools:
        options["tools"] = question.dialogue.tools
    answer = client.chat.completions.create(
        model=model,
        messages=messages(question.dialogue.turns),  # type: ignore[arg-type]  # plain dicts
        max_tokens=_MAX_TOKENS,
        **options,
    )
    message = answer.choices[0].message
    calls = [
        (call.function.name, call.function.arguments)
        for call in message.tool_calls or []
        if call.type == "function"
    ]
    return Answered(question, message.content or "", calls)


def messages(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Turns as OpenAI's messages."""
    found: list[dict[str, Any]] = []
    open_calls: list[str] = []
    for number, turn in enumerate(turns):
        message: dict[str, Any] = {"role": turn.role}
        if turn.calls:
            open_calls = [f"call_{number}_{i}" for i in range(len(turn.calls))]
            message["tool_calls"] = [
                {
                    "id": id_,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments_json},
                }
                for id_, call in zip(open_calls, turn.calls, strict=True)
            ]
        else:
            message["content"] = [_content(part) for part in turn.parts]
        if turn.role == "tool":
            message["tool_call_id"] = open_calls.pop(0)
        found.append(message)
    return found


def _content(part: Part) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": "image_url", "image_url": {"url": data_url(part)}}


def data_url(picture: Image.Image) -> str:
    """A picture as a PNG in a URL."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
