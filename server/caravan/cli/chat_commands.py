"""The loop of `caravan chat`: messages, pictures by their paths, and commands such as /retry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from caravan.cli.chat_conversation import Conversation
from caravan.cli.chat_images import image_part, is_image_path, typed_path
from caravan.cli.chat_keyboard import Keyboard
from caravan.cli.chat_screen import Screen
from caravan.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Command:
    """What `/name` does; `argument`: how help calls what follows it, if something may."""

    argument: str
    help: str
    run: Callable[[str], None]


class ChatLoop:
    """Obeys what is typed."""

    def __init__(self, conversation: Conversation, screen: Screen) -> None:
        self._conversation = conversation
        self._screen = screen
        self._ended = False
        self._commands = {
            "/image": Command(
                "PATH",
                "shows a picture with the next message; its path alone does, too",
                self._show,
            ),
            "/system": Command("TEXT", "sets the instructions; without TEXT: none", self._instruct),
            "/clear": Command("", "forgets all but the instructions", self._clear),
            "/retry": Command("", "asks the last question again", self._retry),
            "/save": Command("FILE", "writes the messages as JSON", self._save),
            "/help": Command("", "lists the commands", self._help),
            "/quit": Command("", "ends", self._quit),
        }

    def run(self, keyboard: Keyboard) -> None:
        """Until /quit or Ctrl-D. Raises KeyboardInterrupt for the second Ctrl-C."""
        while not self._ended:
            message = keyboard.message()
            if message is None:
                return
            if message.strip():
                self._obey(message.strip())

    def _obey(self, message: str) -> None:
        name, _, rest = message.partition(" ")
        command = self._commands.get(name)
        try:
            if command is not None:
                if rest and not command.argument:
                    raise ConfigError(f"{name} takes nothing after it")
                command.run(rest.strip())
            elif is_image_path(message):
                self._show(message)
            elif name.startswith("/") and name[1:].isalpha():
                raise ConfigError("there is no such command; /help lists them")
            else:
                self._conversation.say(message)
        except ConfigError as error:
            self._screen.error(str(error))

    def _show(self, path: str) -> None:
        _require(path, "/image PATH")
        count = self._conversation.attach(image_part(path))
        pictures = "1 picture goes" if count == 1 else f"{count} pictures go"
        self._screen.note(f"{pictures} with the next message")

    def _instruct(self, text: str) -> None:
        self._conversation.system = text or None
        self._screen.note("the next answers follow it" if text else "no instructions")

    def _clear(self, _: str) -> None:
        self._conversation.clear()
        self._screen.note("a new conversation")

    def _retry(self, _: str) -> None:
        if not self._conversation.retry():
            self._screen.note("nothing was asked yet")

    def _save(self, path: str) -> None:
        _require(path, "/save FILE")
        self._conversation.save(typed_path(path))
        self._screen.note("saved")

    def _help(self, _: str) -> None:
        usages = [f"{name} {command.argument}" for name, command in self._commands.items()]
        width = max(map(len, usages))
        for usage, command in zip(usages, self._commands.values(), strict=True):
            self._screen.note(f"{usage:<{width}}  {command.help}")
        self._screen.note("a backslash at the end of a line: the message goes on; Ctrl-C: stops")

    def _quit(self, _: str) -> None:
        self._ended = True


def _require(argument: str, usage: str) -> None:
    if not argument:
        raise ConfigError(f"write {usage}")
