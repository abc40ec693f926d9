"""Names and addresses that `caravan serve` works out."""

from __future__ import annotations

import json
import shlex
import socket
from pathlib import Path

import msgspec
import pytest

from caravan.cli.serving import announcement, local_url, served_name
from caravan.cli.web import bound_socket
from caravan.errors import ConfigError
from caravan.messages import Ready

READY = Ready(
    max_model_len=1000,
    num_pages=10,
    page_bytes=64,
    block_len=4,
    vocab_size=500,
    dtype="float32",
    device="cpu",
    fingerprint="fp_fake",
    load_s=1.5,
)


def test_the_served_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "some" / "model"
    directory.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert served_name("", None) == "caravan-demo"
    assert served_name("", "mine") == "mine"
    assert served_name("organization/name", None) == "organization/name"
    assert served_name(str(directory), None) == "model"
    assert served_name(f"{directory}/", None) == "model"
    assert served_name("some/model", None) == "model", "a directory comes before the Hub"
    assert served_name("~/some/model", None) == "model"
    assert served_name(f"{directory}/.", "x") == "x"


@pytest.mark.parametrize("name", ["plain", 'it\'s "quoted" $HOME', "ü"])
def test_the_printed_command_survives_the_shell(name: str) -> None:
    text = announcement(READY, name, "http://127.0.0.1:8000", needs_key=False)
    words = shlex.split(text[text.index("curl ") :])
    assert words[1] == "http://127.0.0.1:8000/v1/chat/completions"
    assert json.loads(words[words.index("-d") + 1])["model"] == name
    assert not any("Authorization" in word for word in words)


@pytest.mark.parametrize(("takes_images", "said"), [(True, "text and images"), (False, "text")])
def test_what_it_reads_is_said(takes_images: bool, said: str) -> None:
    ready = msgspec.structs.replace(READY, takes_images=takes_images)
    text = announcement(ready, "m", "http://127.0.0.1:8000", needs_key=False)
    assert f"  input    {said}\n" in text


def test_the_page_is_named_where_there_is_one() -> None:
    url = "http://127.0.0.1:8000"
    text = announcement(READY, "m", url, needs_key=False, has_page=True)
    assert f"  URL      {url}/v1\n  page     {url}/\n" in text
    assert "page  " not in announcement(READY, "m", url, needs_key=False)


def test_with_keys_the_printed_command_has_a_place_for_one() -> None:
    text = announcement(READY, "m", "http://127.0.0.1:8000", needs_key=True)
    assert '-H "Authorization: Bearer $API_KEY"' in text


@pytest.mark.parametrize(
    ("host", "reached_at"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("localhost", "localhost")],
)
def test_the_url_has_the_real_port(host: str, reached_at: str) -> None:
    with bound_socket(host, 0) as listener:
        port = listener.getsockname()[1]
        assert port != 0
        assert local_url(host, listener) == f"http://{reached_at}:{port}"


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
@pytest.mark.parametrize("host", ["::1", "::"])
def test_the_url_of_an_ipv6_address(host: str) -> None:
    try:
        listener = bound_socket(host, 0)
    except ConfigError:
        pytest.skip("no IPv6 loopback here")
    with listener:
        assert local_url(host, listener) == f"http://[::1]:{listener.getsockname()[1]}"


def test_an_address_that_is_not_ours_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1 port 0: Cannot"):
        bound_socket("192.0.2.1", 0)


def test_a_port_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1 port {port}: Address already in use"):
            bound_socket("127.0.0.1", port)
