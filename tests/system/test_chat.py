"""`caravan chat` as a real process, with a real server: piped, and on a terminal of its own."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from system.running_server import TIMEOUT_S, RunningServer, until

KEY = "sk-test"
AGAIN_S = 5.0  # after which a person presses Ctrl-C again
SHORT = ("--max-tokens", "8", "--temperature", "0")


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with RunningServer("--api-key", KEY) as server:
        yield server


def chat(
    server: RunningServer, *arguments: str, piped: str | None = None, key: str = KEY
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "caravan", "chat", "--url", server.url, *arguments],
        input=piped,
        stdin=None if piped is not None else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=os.environ | {"CARAVAN_API_KEY": key},
    )


def test_one_answer_even_while_the_model_loads(server: RunningServer, tmp_path: Path) -> None:
    """The server is asked before it is ready, if this machine starts `chat` fast enough."""
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    piped = chat(server, *SHORT, "--image", str(tmp_path / "a.png"), piped="Tell me of llamas\n")
    assert piped.returncode == 0, piped.stderr
    assert piped.stdout.strip()
    server.until_ready()
    with server.client() as client:
        client.headers["authorization"] = f"Bearer {KEY}"
        body = {
            "model": "caravan-demo",
            "messages": [{"role": "user", "content": "Tell me of llamas"}],
            "max_tokens": 8,
            "temperature": 0,
        }
        answer = client.post("/v1/chat/completions", json=body).json()
    given = chat(server, *SHORT, "Tell me of llamas")
    assert given.stderr == ""
    assert given.stdout == answer["choices"][0]["message"]["content"] + "\n"


def test_a_wrong_key_is_one_line_and_status_1(server: RunningServer) -> None:
    refused = chat(server, "Hello", key="wrong")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("caravan: error: The API key is not valid. Give the key")
    assert refused.stderr.count("\n") == 1


class Terminal:
    """`caravan chat` on a pseudo-terminal."""

    def __init__(self, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "caravan", "chat", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=os.environ | {"CARAVAN_API_KEY": KEY, "TERM": "dumb"},
        )
        os.close(slave)
        os.set_blocking(self._master, False)
        self.text = ""

    def until(self, text: str) -> None:
        """Reads on, and forgets it, until the text has come."""

        def came() -> bool:
            self._read()
            return text in self.text

        until(came)
        self.text = self.text[self.text.index(text) + len(text) :]

    def _read(self) -> None:
        try:
            self.text += os.read(self._master, 1 << 16).decode()
        except BlockingIOError:
            assert self.process.poll() is None, self.text

    def interrupt_until(self, text: str) -> None:
        """Ctrl-C, and again where Python lost the first: it does if one falls into a finalizer."""
        pressed_s = 0.0

        def came() -> bool:
            nonlocal pressed_s
            if time.monotonic() - pressed_s > AGAIN_S:
                pressed_s = time.monotonic()
                self.process.send_signal(signal.SIGINT)
            self._read()
            return text in self.text

        until(came)
        self.text = self.text[self.text.index(text) + len(text) :]

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def is_connected(self) -> bool:
        """Whether a request is under way; with a model that is named there is none before."""
        links = [entry.readlink() for entry in Path(f"/proc/{self.process.pid}/fd").iterdir()]
        return any(str(link).startswith("socket:") for link in links)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)


def test_a_conversation_on_a_terminal(server: RunningServer, tmp_path: Path) -> None:
    server.until_ready()
    file = tmp_path / "talk.json"
    terminal = Terminal("--url", server.url, "--model", "caravan-demo", *SHORT)
    try:
        terminal.until("> ")
        server.signal(signal.SIGSTOP)
        terminal.type("Tell me a story\n")
        until(terminal.is_connected)
        terminal.interrupt_until("stopped")
        server.signal(signal.SIGCONT)
        terminal.until("> ")
        terminal.type("/retry\n")
        terminal.until(" tokens, ")
        terminal.until("> ")
        terminal.type(f"/save {file}\n")
        terminal.until("saved")
        terminal.until("> ")
        terminal.type("\x04")
        assert terminal.process.wait(TIMEOUT_S) == 0
    finally:
        server.signal(signal.SIGCONT)
        terminal.close()
    question, answer = json.loads(file.read_text())
    assert question == {"role": "user", "content": "Tell me a story"}
    assert answer["content"]
    until(lambda: server.metric("caravan_requests_running") == 0)
