"""`caravan chat`: talks to a server of OpenAI's chat API, once or in a conversation."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from caravan.cli.flags import Subparsers, add_flags, read
from caravan.config import ApiConfig, setting
from caravan.errors import ConfigError

if TYPE_CHECKING:
    from caravan.cli.chat_client import ChatClient
    from caravan.cli.chat_images import Part
    from caravan.cli.chat_screen import Screen

KEY_VARIABLES = ("CARAVAN_API_KEY", "OPENAI_API_KEY")
MODEL_HELP = "name of the model; default: the first that the server lists"
SAMPLING = ("temperature", "top_p", "max_tokens", "seed")


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatConfig:
    """Whom `caravan chat` talks to, and what goes with every request."""

    url: str = setting(
        f"http://{ApiConfig().host}:{ApiConfig().port}",
        "address of the server, with /v1 or without",
    )
    api_key: str | None = setting(
        None, f"key that the server asks for; default: what {' or '.join(KEY_VARIABLES)} holds"
    )
    model: str | None = setting(None, MODEL_HELP)
    system: str | None = setting(None, "instructions that stand before the conversation")
    image: tuple[str, ...] = setting(
        (), "file of a picture that goes with the first message; may be given several times"
    )
    temperature: float | None = setting(None, "randomness of the answers; default: the server's")
    top_p: float | None = setting(
        None, "share of probability that tokens are drawn from; default: the server's"
    )
    max_tokens: int | None = setting(None, "most tokens of an answer; default: the server's")
    seed: int | None = setting(None, "seed of the draws; default: a new one for each answer")

    def __post_init__(self) -> None:
        for name in ("api_key", "model", "system"):
            text = getattr(self, name)
            flag = "--" + name.replace("_", "-")
            if text == "":
                raise ConfigError(f"{flag} is empty; give a text, or leave the flag out")
            require_unicode(flag, text or "")


def add_parser(subparsers: Subparsers) -> None:
    """Adds `chat`."""
    parser = subparsers.add_parser(
        "chat",
        help="talk to a running server",
        description="Answers PROMPT, or what is piped in, and ends; without either it is a "
        "conversation, in which /help lists the commands. The server may be any with OpenAI's "
        "chat API.",
    )
    parser.add_argument(
        "prompt", nargs="?", default=None, metavar="PROMPT", help="message to answer, once"
    )
    parser.add_argument(  # `add_flags` leaves it out: elsewhere it is positional
        "--model",
        default=argparse.SUPPRESS,
        metavar="TEXT",
        help=MODEL_HELP,
    )
    add_flags(parser, ChatConfig)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """One answer, or a conversation. Raises ConfigError."""
    config = read(arguments, ChatConfig)
    prompt: str | None = arguments.prompt
    if prompt is None and not sys.stdin.isatty():
        prompt = piped(sys.stdin)
    from rich.console import Console  # this and httpx take a third of a second to import

    from caravan.cli.chat_client import ChatClient, ChatFailed
    from caravan.cli.chat_images import image_part
    from caravan.cli.chat_screen import Screen

    images = [image_part(path) for path in config.image]
    if prompt is not None:
        require_unicode("PROMPT", prompt)
        if not (prompt.strip() or images):
            raise ConfigError("there is no prompt; give PROMPT, or pipe one in")
    screen = Screen(sys.stdout, Console(stderr=True))
    sampling = {name: getattr(config, name) for name in SAMPLING}
    try:
        with ChatClient(
            config.url,
            found_key(config.api_key, os.environ),
            config.model,
            {name: value for name, value in sampling.items() if value is not None},
            notify=lambda reason: screen.note(f"waiting: {reason}"),
        ) as client:
            if prompt is not None:
                answer_once(client, screen, config.system, prompt, images)
            else:
                converse(client, screen, config.system, images)
    except ChatFailed as failure:
        screen.error(str(failure), prefix="caravan: error:")
        return 1
    except BrokenPipeError:  # who read the answer has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the exit would complain
        return 1
    return 0


def answer_once(
    client: ChatClient, screen: Screen, system: str | None, prompt: str, images: list[Part]
) -> None:
    """Prints the answer and nothing else. Raises ChatFailed."""
    from caravan.cli.chat_conversation import Answer, question, system_messages

    messages = [*system_messages(system), question(prompt, images)]
    Answer().follow(client.answer(messages), screen)


def converse(client: ChatClient, screen: Screen, system: str | None, images: list[Part]) -> None:
    """Until the user ends it. Raises ChatFailed only before the first prompt."""
    from caravan.cli.chat_commands import ChatLoop
    from caravan.cli.chat_conversation import Conversation
    from caravan.cli.chat_keyboard import Keyboard

    screen.note(f"{client.model()} at {client.url}; /help lists the commands, Ctrl-D ends")
    ChatLoop(Conversation(client, screen, system, images), screen).run(Keyboard(screen))


def piped(stdin: TextIO) -> str:
    """All of it, without the newlines at the end. Raises ConfigError."""
    try:
        return stdin.read().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ConfigError("what is piped in is not text in the terminal's encoding") from None


def found_key(flag: str | None, environment: Mapping[str, str]) -> str | None:
    """The key of the flag, else of the environment. Raises ConfigError if no header can have it."""
    named = {"--api-key": flag or "", **{n: environment.get(n, "") for n in KEY_VARIABLES}}
    for name, key in named.items():
        if key := key.strip():
            if not (key.isascii() and key.isprintable()):
                raise ConfigError(f"{name} has characters that a header cannot carry")
            return key
    return None


def require_unicode(name: str, text: str) -> None:
    """Raises ConfigError for bytes of an argument that were no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{name} is not UTF-8") from None
