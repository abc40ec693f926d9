"""A conversation: what was said, what is said next, and what a broken answer leaves behind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from caravan.cli.chat_client import ChatClient, ChatFailed, Message, Piece, Pieces
from caravan.cli.chat_images import Part
from caravan.cli.chat_screen import Screen
from caravan.errors import ConfigError

# In JSON they stand in strings only. A terminal that shows the file would obey some of them.
_ESCAPED = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}


def question(text: str, images: Sequence[Part]) -> Message:
    """The user's message; its pictures come before what is asked about them."""
    if not images:
        return {"role": "user", "content": text}
    words: list[Part] = [{"type": "text", "text": text}] if text else []
    return {"role": "user", "content": [*images, *words]}


def system_messages(text: str | None) -> list[Message]:
    """What stands before a conversation."""
    return [{"role": "system", "content": text}] if text else []


class Answer:
    """One answer while it comes."""

    def __init__(self) -> None:
        self.text = ""
        self._num_tokens: int | None = None
        self._first_s: float | None = None
        self._last_s = 0.0
        self._finish: str | None = None

    def follow(self, pieces: Pieces, screen: Screen) -> None:
        """Shows all pieces. However it ends, the request has, too. Raises ChatFailed."""
        try:
            with closing(pieces):
                for piece in pieces:
                    self._add(piece)
                    screen.answer(piece.text)
        finally:
            screen.end_answer()

    def figures(self) -> str:
        """Tokens, tokens per second after the first, time to the first: what is known of it."""
        said = []
        if self._num_tokens is not None:
            said.append(f"{self._num_tokens} token{'s' * (self._num_tokens != 1)}")
        if self._first_s is not None:
            decoding_s = self._last_s - self._first_s
            if self._num_tokens is not None and self._num_tokens > 1 and decoding_s > 0:
                said.append(f"{(self._num_tokens - 1) / decoding_s:.1f} tokens/s")
            said.append(f"first after {self._first_s:.2f} s")
        if self._finish == "length":
            said.append("cut off: as long as it may be")
        return ", ".join(said) or "nothing was said"

    def _add(self, piece: Piece) -> None:
        if piece.text:
            self.text += piece.text
            self._last_s = piece.after_s
            if self._first_s is None:
                self._first_s = piece.after_s
        self._finish = piece.finish or self._finish
        if piece.num_tokens is not None:
            self._num_tokens = piece.num_tokens


class Conversation:
    """Questions with their answers. A question without any answer is kept for `retry` only."""

    def __init__(
        self, client: ChatClient, screen: Screen, system: str | None, images: Sequence[Part]
    ) -> None:
        self.system = system
        self._client = client
        self._screen = screen
        self._images = list(images)  # for the next question
        self._turns: list[tuple[Message, Message]] = []
        self._last: Message | None = None  # the last question
        self._saved: set[Path] = set()

    @property
    def messages(self) -> list[Message]:
        """All that was said, as it is sent."""
        return [*system_messages(self.system), *(each for turn in self._turns for each in turn)]

    def attach(self, image: Part) -> int:
        """Shows a picture with the next question; returns how many these are now."""
        self._images.append(image)
        return len(self._images)

    def say(self, text: str) -> None:
        """Asks, and shows the answer."""
        asked = question(text, self._images)
        self._images = []
        self._ask(asked)

    def retry(self) -> bool:
        """Asks the last question again; False: there is none. A new answer replaces the old."""
        if self._last is None:
            return False
        old = self._turns.pop() if self._is_answered() else None
        if not self._ask(self._last) and old is not None:
            self._turns.append(old)
        return True

    def clear(self) -> None:
        """Forgets all but the instructions."""
        self._turns = []
        self._images = []
        self._last = None

    def save(self, path: Path) -> None:
        """Writes the messages as JSON, over files of its own only. Raises ConfigError."""
        text = json.dumps(self.messages, ensure_ascii=False, indent=2).translate(_ESCAPED)
        path = path.absolute()
        try:
            with path.open("w" if path in self._saved else "x", encoding="utf-8") as file:
                file.write(text + "\n")
        except FileExistsError:
            raise ConfigError(f"{path} exists; choose another name") from None
        except (OSError, ValueError):  # ValueError: a character that no path has
            raise ConfigError(f"{path} cannot be written") from None
        self._saved.add(path)

    def _is_answered(self) -> bool:
        return bool(self._turns) and self._turns[-1][0] is self._last

    def _ask(self, asked: Message) -> bool:
        """Whether there is an answer, be it a part of one."""
        self._last = asked
        answer = Answer()
        is_complete = False
        try:
            answer.follow(self._client.answer([*self.messages, asked]), self._screen)
            is_complete = True
            self._screen.figures(answer.figures())
        except KeyboardInterrupt:
            self._screen.note("stopped")
        except ChatFailed as failure:
            self._screen.error(str(failure))
        if not (answer.text or is_complete):
            self._screen.note("not answered: /retry asks again")
            return False
        self._turns.append((asked, {"role": "assistant", "content": answer.text}))
        return True
