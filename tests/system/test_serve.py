"""`caravan serve` in real processes: what clients get, and how it starts and ends."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from system.running_server import (
    RunningServer,
    children,
    completion,
    events,
    runs,
    until,
)

LONG = 4000  # tokens: more than the demo generates while a test looks
KEY = "sk-test"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """For the tests that leave it as it was."""
    with RunningServer("--api-key", KEY) as server:
        yield server.until_ready()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.output


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        client.headers["authorization"] = f"Bearer {KEY}"
        yield client


@pytest.fixture(scope="module")
def sdk(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=KEY, base_url=f"{server.url}/v1") as sdk:
        yield sdk


def metric(client: httpx.Client, name: str) -> float:
    text = client.get("/metrics").text
    match = re.search(rf"^{re.escape(name)} (\S+)$", text, flags=re.MULTILINE)
    assert match, name
    return float(match[1])


class TestServing:
    def test_chat_streamed_and_whole_agree(self, sdk: openai.OpenAI) -> None:
        request: dict[str, Any] = {
            "model": "caravan-demo",
            "messages": [{"role": "user", "content": "Tell me of llamas"}],
            "max_tokens": 40,
            "temperature": 0,
        }
        whole = sdk.chat.completions.create(**request)
        stream = sdk.chat.completions.create(**request, stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        assert whole.choices[0].message.content == text
        assert text
        assert whole.usage
        assert 0 < whole.usage.completion_tokens <= 40

    def test_many_at_once_get_what_each_gets_alone(self, client: httpx.Client) -> None:
        bodies = [
            completion(20 + i, stream=False) | {"prompt": "ab" * (i * 40 + 1), "temperature": 0}
            for i in range(6)
        ]
        alone = [client.post("/v1/completions", json=body).json() for body in bodies]
        together: list[Any] = [None] * len(bodies)

        def post(i: int) -> None:
            together[i] = client.post("/v1/completions", json=bodies[i]).json()

        threads = [threading.Thread(target=post, args=[i]) for i in range(len(bodies))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for one, other in zip(alone, together, strict=True):
            assert one["choices"][0]["text"] == other["choices"][0]["text"]
            assert one["usage"]["completion_tokens"] == other["usage"]["completion_tokens"]

    def test_the_printed_command_works(self, server: RunningServer) -> None:
        command = server.stdout[server.stdout.index("Try it:\n") + 1].strip()
        assert command.startswith("curl ")
        result = subprocess.run(
            ["bash", "-c", f"{command} --silent --noproxy '*'"],
            capture_output=True,
            text=True,
            env=os.environ | {"API_KEY": KEY},
        )
        assert '"object":"chat.completion"' in result.stdout.replace(" ", ""), result

    def test_what_it_prints(self, server: RunningServer) -> None:
        text = "".join(server.stdout)
        assert f"URL      {server.url}/v1" in text
        assert "serves caravan-demo" in text
        assert "bfloat16 on" in text
        assert "at most 8192 tokens" in text
        assert "weights: 100%" in text
        assert not server.stderr, server.stderr

    def test_only_the_engine_loads_torch(self, server: RunningServer) -> None:
        maps = {pid: Path(f"/proc/{pid}/maps").read_text() for pid in
                (server.process.pid, server.engine_pid)}  # fmt: skip
        assert "libtorch" in maps[server.engine_pid]
        assert "libtorch" not in maps[server.process.pid]

    def test_a_client_that_leaves_frees_its_pages(
        self, server: RunningServer, client: httpx.Client
    ) -> None:
        with client.stream("POST", "/v1/completions", json=completion(LONG)) as response:
            stream = events(response)
            next(stream)
            assert metric(client, 'caravan_kv_pages{state="owned"}') > 0
        until(lambda: metric(client, 'caravan_kv_pages{state="owned"}') == 0)
        assert metric(client, "caravan_requests_running") == 0

    def test_a_plain_request_whose_client_leaves_frees_its_pages(
        self, client: httpx.Client
    ) -> None:
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/completions", json=completion(LONG, stream=False), timeout=0.5)
        until(lambda: metric(client, 'caravan_kv_pages{state="owned"}') == 0)

    def test_a_connection_serves_many_requests(self, server: RunningServer) -> None:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
        connection.connect()
        first = connection.sock
        for _ in range(3):
            connection.request("GET", "/health")
            response = connection.getresponse()
            assert response.status == 200
            assert response.read() == b'{"status":"ok"}'
            assert connection.sock is first, "http.client opens another if the server closes one"
        connection.close()

    def test_the_port_is_taken(self, server: RunningServer) -> None:
        port = server.url.rsplit(":", 1)[1]
        with RunningServer("--port", port) as other:
            assert other.wait() == 2
        assert other.stdout == []
        assert other.stderr == [
            f"caravan: error: cannot listen on 127.0.0.1 port {port}: Address already in use; "
            "choose another address with --host and --port (0: a free one)\n"
        ]


class TestRefusingToStart:
    @pytest.mark.parametrize(
        ("flags", "complaint"),
        [
            (["/no/such/model"], "/no/such/model"),
            (["--host", "host.invalid"], "--host is host.invalid"),
            (["--max-model-len", "100000"], "--max-model-len is 100000"),  # the engine says so
            (["--max-model-len", "0"], "--max-model-len is 0"),
        ],
    )
    def test_the_reason_is_one_line_and_the_status_2(
        self, flags: list[str], complaint: str
    ) -> None:
        with RunningServer(*flags) as server:
            assert server.wait() == 2, server.output
        assert len(server.stderr) == 1, server.stderr
        assert server.stderr[0].startswith("caravan: error: ")
        assert complaint in server.stderr[0]


class TestEnding:
    """Every test here ends its own server."""

    def test_sigterm_lets_a_stream_finish(self) -> None:
        flags = ["--shutdown-timeout", "300"]
        with RunningServer(*flags) as server, server.until_ready().client() as client:
            engine = server.engine_pid
            with client.stream("POST", "/v1/completions", json=completion(400)) as response:
                stream = events(response)
                received = [next(stream)]
                server.signal(signal.SIGTERM)
                until(lambda: client.get("/ready").status_code == 503)
                refused = client.post("/v1/completions", json=completion(1))
                health = client.get("/health")
                received += stream
            status = server.wait()
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "draining"
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.headers["connection"] == "close"
        assert health.status_code == 200
        assert received[-1] == "[DONE]"
        assert received[-2]["choices"][0]["finish_reason"] == "length"
        assert status == 0, server.output
        assert not runs(engine)

    def test_after_the_timeout_a_stream_is_cut_with_an_error(self) -> None:
        flags = ["--shutdown-timeout", "0.2"]
        with RunningServer(*flags) as server, server.until_ready().client() as client:
            with client.stream("POST", "/v1/completions", json=completion(LONG)) as response:
                stream = events(response)
                received = [next(stream)]
                server.signal(signal.SIGINT)
                received += stream
            status = server.wait()
        assert received[-1] == "[DONE]"
        assert received[-2]["error"]["code"] == "draining"
        assert status == 0, server.output

    def test_an_idle_server_ends_at_once_and_leaves_no_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        with RunningServer() as server:
            server.until_ready()
            assert not list(tmp_path.glob("caravan-*/engine")), "the socket's file is still there"
            server.signal(signal.SIGTERM)
            assert server.wait(10) == 0, server.output
        assert [path for path in tmp_path.iterdir() if path.name.startswith("caravan-")] == []

    def test_sigterm_while_it_loads(self) -> None:
        with RunningServer() as server:
            engine = server.engine_pid
            with server.client() as client:
                assert client.get("/ready").status_code == 503
                assert client.get("/health").status_code == 200
                answer = client.post("/v1/completions", json=completion(1))
                assert answer.json()["error"]["code"] == "loading"
                assert int(answer.headers["retry-after"]) >= 1
            assert "Try it:\n" not in server.stdout, "it was loaded before the test could look"
            server.signal(signal.SIGTERM)
            assert server.wait(10) == 0, server.output
        assert not runs(engine)

    def test_a_second_signal_ends_everything_now(self) -> None:
        with RunningServer() as server, server.until_ready().client() as client:
            engine = server.engine_pid
            with client.stream("POST", "/v1/completions", json=completion(LONG)) as response:
                stream = events(response)
                next(stream)
                server.signal(signal.SIGTERM)
                until(lambda: client.get("/ready").status_code == 503)
                server.signal(signal.SIGINT)
                assert server.wait(5) == 128 + signal.SIGINT
        until(lambda: not runs(engine), timeout_s=3)

    def test_when_the_engine_dies_streams_get_an_error_and_the_server_ends(self) -> None:
        with RunningServer() as server, server.until_ready().client() as client:
            with client.stream("POST", "/v1/completions", json=completion(LONG)) as response:
                stream = events(response)
                received = [next(stream)]
                os.kill(server.engine_pid, signal.SIGKILL)
                received += stream
            status = server.wait(5)
        assert received[-1] == "[DONE]"
        assert received[-2]["error"]["code"] == "engine_dead"
        assert status == 1, server.output

    def test_when_the_server_is_killed_the_engine_ends(self) -> None:
        with RunningServer() as server, server.until_ready().client() as client:
            engine = server.engine_pid
            with client.stream("POST", "/v1/completions", json=completion(LONG)) as response:
                stream = events(response)
                next(stream)
                server.process.kill()
                until(lambda: not runs(engine), timeout_s=3)

    def test_when_the_server_is_killed_while_it_loads_the_engine_ends(self) -> None:
        with RunningServer() as server:
            engine = server.engine_pid
            server.process.kill()
            until(lambda: not runs(engine), timeout_s=3)

    def test_the_engine_leaves_signals_to_its_parent(self) -> None:
        with RunningServer() as server, server.until_ready().client() as client:
            engine = server.engine_pid
            for number in (signal.SIGINT, signal.SIGTERM):
                os.kill(engine, number)
            answer = client.post("/v1/completions", json=completion(3, stream=False))
            assert answer.status_code == 200
            assert children(server.process.pid) == [engine]
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
