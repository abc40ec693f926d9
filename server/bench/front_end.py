"""Times the HTTP side alone, beside applications without a framework that write the same bytes.

    python server/bench/front_end.py [--streams 1 32 128] [--json FILE]

One core is the server's, another one the clients'. What counts is the server's own CPU time, so a
slow client or a busy machine changes little: all rates are per second of one core. In every round
the servers (front_end_server.py) take turns, and a ratio is that of one round.

    caravan      answers over an engine that plays tokens: parsing, validation, the prompt, the text
    raw          writes one event for each turn of the loop, as tokens come
    burst        writes whole streams at once: uvicorn's and the kernel's share and nothing else
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from front_end_load import Client, drive, post, record
from front_end_server import KINDS, MODEL, Recording

HERE = Path(__file__).parent
PACKAGES = ("uvicorn", "uvloop", "httptools", "starlette", "fastapi", "pydantic", "msgspec")
START_S = 60  # to start in, at most
SETTLE_S = 0.02
SYSTEM = "You are a careful assistant. Answer in the language of the question, and be brief."
QUESTION = (
    "My grandmother left me a ledger in which she wrote down every ship that passed her lighthouse "
    "between 1899 and 1907. How would you find out whether anybody ever checked it against the "
    "harbour's own books, and what would you ask the archive first?"
)


@dataclass(frozen=True, slots=True)
class Case:
    """Some clients that ask the same."""

    name: str
    path: str
    body: dict[str, Any]
    clients: int
    rounds: int  # requests of each client in one measurement

    @property
    def streams(self) -> bool:
        """Whether events are counted; otherwise answers are."""
        return "stream" in self.body

    @property
    def kinds(self) -> Sequence[str]:
        """An answer in one piece has no turns between its pieces."""
        return KINDS if self.streams else KINDS[:2]

    @property
    def text(self) -> str:
        """The body as it is sent."""
        return json.dumps(self.body, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs."""

    port: int
    pid: int

    def cpu_s(self) -> float:
        """Seconds of CPU that its process has used.

        The kernel counts at its own ticks, and when a process goes to sleep: this waits until it
        has. The clock is that of clock_getcpuclockid(3), which Python lacks.
        """
        time.sleep(SETTLE_S)
        return time.clock_gettime(~self.pid << 3 | 2)


def cases(arguments: argparse.Namespace) -> list[Case]:
    """What is measured: streams as long as usual, and short answers in one piece."""
    messages = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": QUESTION},
    ]
    chat = {"model": MODEL, "messages": messages, "temperature": 0.7}
    completion = {"model": MODEL, "prompt": QUESTION, "temperature": 0.7}
    long, short = {"max_tokens": arguments.tokens}, {"max_tokens": arguments.short}
    chat_path, completion_path = "/v1/chat/completions", "/v1/completions"
    wanted = arguments.requests  # of each measurement; of long streams fewer will do
    found = []
    for kind, path, body in (("chat", chat_path, chat), ("text", completion_path, completion)):
        for clients in arguments.streams:
            rounds = max(1, wanted // 10 // clients)
            stream = {**body, **long, "stream": True}
            found.append(Case(f"{kind} stream", path, stream, clients, rounds))
        clients = arguments.clients
        rounds = max(1, wanted // clients)
        found.append(Case(f"{kind} request", path, {**body, **short}, clients, rounds))
    return found


@contextmanager
def running(kind: str, *flags: str, core: int | None) -> Iterator[Server]:
    """A server of a kind, in a process of its own."""
    command = [sys.executable, str(HERE / "front_end_server.py"), kind, *flags]
    if core is not None:
        command += ["--core", str(core)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            _wait_for(port)
            yield Server(port, process.pid)
        finally:
            process.terminate()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            Client(port).socket.close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.02)
        else:
            return


def measure(
    case: Case, servers: dict[str, Server], recording: Recording, repeats: int
) -> dict[str, Any]:
    """Rates per second of one core, and their ratios, round by round."""
    request = post(case.path, case.text)
    events_expected = sum(piece.count("\n\n") for piece in recording.pieces)
    clients = {
        kind: [Client(servers[kind].port) for _ in range(case.clients)] for kind in case.kinds
    }
    rates: dict[str, list[float]] = {kind: [] for kind in case.kinds}
    for repeat in range(repeats + 1):
        for kind in case.kinds:
            before_s = servers[kind].cpu_s()
            load = drive(clients[kind], request, case.rounds)
            used_s = servers[kind].cpu_s() - before_s
            assert load.events == load.answers * events_expected, (load, events_expected)
            if repeat:  # the first is to warm up
                rates[kind].append((load.events if case.streams else load.answers) / used_s)
    for client in (one for several in clients.values() for one in several):
        client.socket.close()
    ratios = {
        f"caravan/{kind}": [a / b for a, b in zip(rates["caravan"], rates[kind], strict=True)]
        for kind in case.kinds[1:]
    }
    return {
        "case": case.name,
        "clients": case.clients,
        "unit": "events/s" if case.streams else "requests/s",
        "tokens": case.body["max_tokens"],
        **{kind: round(median(values)) for kind, values in rates.items()},
        **{name: round(median(values), 3) for name, values in ratios.items()},
        "ranges": {
            name: [round(min(values), 3), round(max(values), 3)]
            for name, values in (rates | ratios).items()
        },
    }


def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Every case; prints a line for each."""
    cores = sorted(os.sched_getaffinity(0))
    server_core = cores[-1] if len(cores) > 1 else None
    if server_core is not None:
        os.sched_setaffinity(0, set(cores[:-1]))
    measured = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        flags = ["--tokenizer", str(arguments.tokenizer)]
        caravan = stack.enter_context(running("caravan", *flags, core=server_core))
        servers = {"caravan": caravan}
        wanted = cases(arguments)
        recordings = [record(caravan.port, case.path, case.text) for case in wanted]
        file = folder / "recordings.json"
        file.write_bytes(msgspec.json.encode(recordings))
        for kind in KINDS[1:]:
            other = running(kind, "--recordings", str(file), core=server_core)
            servers[kind] = stack.enter_context(other)
        print(f"{'case':<22}{'unit':>11}" + "".join(f"{kind:>10}" for kind in KINDS) + "   ratios")
        for case, recording in zip(wanted, recordings, strict=True):
            result = measure(case, servers, recording, arguments.repeats)
            measured.append(result)
            print(_line(result), flush=True)
    return measured


def _line(result: dict[str, Any]) -> str:
    rates = "".join(f"{result.get(kind, ''):>10}" for kind in KINDS)
    ratios = "  ".join(
        f"{result[name]:.0%} of {name.removeprefix('caravan/')}"
        for name in (f"caravan/{kind}" for kind in KINDS)
        if name in result
    )
    name = f"{result['case']} x {result['clients']}"
    return f"{name:<22}{result['unit']:>11}{rates}   {ratios}"


def facts() -> dict[str, Any]:
    """What made a result."""
    return {
        "command": sys.argv,
        "date": time.strftime("%Y-%m-%d"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _llama4_tokenizer() -> Path:
    """The directory of the one that the package `llama-models` has."""
    spec = importlib.util.find_spec("llama_models")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pip install llama-models, or name a directory with --tokenizer")
    return Path(spec.submodule_search_locations[0]) / "llama4"


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 32, 128])
    parser.add_argument("--tokens", type=int, default=200, help="in each stream")
    parser.add_argument("--clients", type=int, default=32, help="of answers in one piece")
    parser.add_argument("--short", type=int, default=16, help="tokens in an answer in one piece")
    parser.add_argument("--requests", type=int, default=320, help="in each measurement")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--tokenizer", type=Path, help="a directory; default: Llama 4's own")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    arguments.tokenizer = arguments.tokenizer or _llama4_tokenizer()
    measured = run(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps({**facts(), "results": measured}, indent=2) + "\n")


if __name__ == "__main__":
    main()
