"""`caravan chat` against a played server: conversations, single answers, and what goes wrong."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from caravan.cli import chat, main
from caravan.cli.chat_client import SILENCE_S, ChatClient, ChatFailed
from caravan.cli.chat_events import EventReader
from caravan.cli.chat_images import MAX_IMAGE_BYTES, image_part, is_image_path
from caravan.cli.chat_screen import harmless
from caravan.errors import ConfigError
from unit.cli.chatting import (
    DONE,
    Played,
    event,
    refused,
    said,
    streamed,
    usage,
    whole,
)

PNG = b"\x89PNG\r\n\x1a\n and so on"
PNG_URL = "data:image/png;base64,iVBORw0KGgogYW5kIHNvIG9u"
USER = {"role": "user", "content": "Hello"}


@pytest.fixture
def png(tmp_path: Path) -> Path:
    path = tmp_path / "a picture.png"
    path.write_bytes(PNG)
    return path


class TestConversation:
    def test_answers_stream_and_the_whole_history_goes_along(self) -> None:
        played = Played(streamed(*whole("Hi")), streamed(*whole("Lima")))
        talk = played.talk("Hello", "", "Capital of Peru?", system="Be brief.")
        assert played.shown == "Hi\nLima\n"
        first, second = played.bodies
        system = {"role": "system", "content": "Be brief."}
        assert first == {
            "model": "first",
            "messages": [system, USER],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        assert second["messages"] == [
            system,
            USER,
            {"role": "assistant", "content": "Hi"},
            {"role": "user", "content": "Capital of Peru?"},
        ]
        assert talk.messages == [*second["messages"], {"role": "assistant", "content": "Lima"}]
        assert [request.method for request in played.requests] == ["GET", "POST", "POST"]

    def test_text_is_shown_as_it_comes(self) -> None:
        played = Played(streamed(said("a"), said("b"), DONE))
        pieces = played.client().answer([USER])
        assert next(pieces).text == "a"
        assert next(pieces).text == "b"

    def test_flags_go_with_every_request(self) -> None:
        played = Played(streamed(*whole("x")), streamed(*whole("y")))
        client = played.client(model="mine", key="sk", temperature=0.5, seed=7)
        played.talk("a", "b", client=client)
        assert [(b["model"], b["temperature"], b["seed"]) for b in played.bodies] == [
            ("mine", 0.5, 7)
        ] * 2
        assert {r.headers["authorization"] for r in played.requests} == {"Bearer sk"}
        assert len(played.requests) == 2, "a named model is not looked up"

    def test_a_picture_goes_along_once_and_stays_in_the_history(self, png: Path) -> None:
        played = Played(*(streamed(*whole(text)) for text in "abc"))
        dropped = str(png).replace(" ", "\\ ") + " "
        played.talk(f"/image {png}", dropped, "What is it?", "And now?", f"'{png}'", "Again?")
        image = {"type": "image_url", "image_url": {"url": PNG_URL}}
        shown = {"role": "user", "content": [image, image, {"type": "text", "text": "What is it?"}]}
        assert played.bodies[0]["messages"] == [shown]
        assert played.bodies[1]["messages"][0] == shown
        assert played.bodies[1]["messages"][-1] == {"role": "user", "content": "And now?"}
        assert played.bodies[2]["messages"][-1]["content"] == [
            image,
            {"type": "text", "text": "Again?"},
        ]
        assert "1 picture goes with the next message\n2 pictures go" in played.notes.getvalue()

    def test_pictures_of_the_command_line_go_with_the_first_message(self, png: Path) -> None:
        played = Played(streamed(*whole("a")), streamed(*whole("b")))
        played.talk("one", "two", images=[image_part(str(png))])
        content = [message["content"] for message in played.bodies[1]["messages"]]
        assert [type(each) for each in content] == [list, str, str]

    def test_retry_replaces_the_answer(self) -> None:
        played = Played(*(streamed(*whole(text)) for text in ("one", "two", "three")))
        talk = played.talk("/retry", "Hello", "/retry", "Next")
        assert "nothing was asked yet" in played.notes.getvalue()
        assert played.bodies[0]["messages"] == played.bodies[1]["messages"] == [USER]
        assert [m["content"] for m in talk.messages] == ["Hello", "two", "Next", "three"]

    def test_a_retry_that_fails_leaves_the_old_answer(self) -> None:
        played = Played(streamed(*whole("one")), refused(400, "No."))
        talk = played.talk("Hello", "/retry")
        assert [m["content"] for m in talk.messages] == ["Hello", "one"]

    def test_what_was_refused_leaves_no_trace_but_can_be_retried(self, png: Path) -> None:
        image = image_part(str(png))
        played = Played(
            refused(400, "Bad\npicture."), *(streamed(*whole(text)) for text in ("two", "three"))
        )
        talk = played.talk("Hello", "Other", "/clear", "/retry", "Third", images=[image])
        assert "error: Bad picture.\nnot answered: /retry asks again\n" in played.notes.getvalue()
        assert played.bodies[1]["messages"] == [{"role": "user", "content": "Other"}]
        assert [m["content"] for m in talk.messages] == ["Third", "three"], "cleared"
        played = Played(refused(400, "No."), streamed(*whole("two")))
        played.talk("Hello", "/retry", images=[image])
        assert played.bodies[0] == played.bodies[1]

    def test_clear_forgets_all_but_the_instructions(self, png: Path) -> None:
        played = Played(streamed(*whole("a")), streamed(*whole("b")))
        played.talk("one", f"/image {png}", "/clear", "Hello", system="Be brief.")
        assert played.bodies[1]["messages"] == [{"role": "system", "content": "Be brief."}, USER]

    def test_instructions_change(self) -> None:
        played = Played(streamed(*whole("a")), streamed(*whole("b")))
        played.talk("/system  Be kind. ", "one", "/system", "two", system="Be brief.")
        roles = [[m["role"] for m in body["messages"]] for body in played.bodies]
        assert played.bodies[0]["messages"][0] == {"role": "system", "content": "Be kind."}
        assert roles == [["system", "user"], ["user", "assistant", "user"]]

    def test_saved_messages_are_json_over_own_files_only(self, tmp_path: Path) -> None:
        played = Played(streamed(*whole("ü\x9b\x1b")), streamed(*whole("b")))
        other = tmp_path / "other"
        other.write_text("precious")
        file = tmp_path / "my talk.json"
        save = f"/save {file}"
        played.talk("Hello", save, "two", save, f"/save {other}", f"/save {tmp_path}/no/file")
        text = file.read_text()
        assert [m["content"] for m in json.loads(text)] == ["Hello", "ü\x9b\x1b", "two", "b"]
        assert harmless(text) == text
        assert other.read_text() == "precious"
        notes = played.notes.getvalue()
        assert f"error: {other} exists; choose another name\n" in notes
        assert f"error: {tmp_path}/no/file cannot be written\n" in notes

    def test_commands(self) -> None:
        played = Played(streamed(*whole("a")))
        played.talk("/help", "/nonsense", "/clear all", "/image", "/save", "/bin is what?", "/quit",
                    "never")  # fmt: skip
        notes = played.notes.getvalue()
        assert "/image PATH   shows" in notes
        assert "/quit         ends\n" in notes
        for error in ("there is no such command", "/clear takes nothing", "write /image PATH",
                      "write /save FILE"):  # fmt: skip
            assert f"error: {error}" in notes
        assert "error: there is no such command; /help lists them" in notes
        assert played.bodies == [], "/bin could be a mistyped command"

    def test_a_path_in_a_sentence_is_no_command(self) -> None:
        played = Played(streamed(*whole("a")))
        played.talk("/usr/bin is what?")
        assert played.bodies[0]["messages"][0]["content"] == "/usr/bin is what?"

    def test_several_lines_are_one_message(self) -> None:
        played = Played(streamed(*whole("a")))
        played.talk("one\\", "two\\", "three")
        assert played.bodies[0]["messages"][0]["content"] == "one\ntwo\nthree"

    def test_prompts_stay_out_of_a_file_of_answers(self) -> None:
        played = Played(streamed(*whole("a")))
        played.output.is_terminal = False
        played.talk("Hello")
        assert played.output.getvalue() == "a\n"
        assert played.notes.getvalue() == "> > "

    def test_figures_on_a_terminal_only(self) -> None:
        for is_terminal in (False, True):
            played = Played(streamed(*whole("abcd", "length")))
            played.screen._notes._force_terminal = is_terminal
            played.talk("Hello")
            # the clock ticks once an event: a first after 1 s, then three tokens in 3 s
            figures = "4 tokens, 1.0 tokens/s, first after 1.00 s, cut off: as long as it may be"
            assert (figures in played.notes.getvalue()) == is_terminal

    def test_an_empty_answer_is_one(self) -> None:
        played = Played(streamed(*whole("")))
        talk = played.talk("Hello")
        assert [m["content"] for m in talk.messages] == ["Hello", ""]
        assert played.shown == ""


class TestInterrupts:
    def test_one_stops_the_answer_and_what_came_stays(self) -> None:
        reply = streamed(said("Once"), KeyboardInterrupt(), said("upon"))
        played = Played(reply, streamed(*whole("b")))
        talk = played.talk("Hello", "next")
        assert reply.is_closed
        assert played.shown == "Once\nb\n"
        assert "stopped" in played.notes.getvalue()
        assert [m["content"] for m in talk.messages] == ["Hello", "Once", "next", "b"]

    def test_one_while_it_is_printed_closes_the_response_at_once(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reply = streamed(*whole("Once"))
        played = Played(reply)
        monkeypatch.setattr(played.output, "flush", _interrupt)
        with pytest.raises(KeyboardInterrupt) as caught:  # its frames hold the generator
            chat.answer_once(played.client(), played.screen, None, "Hello", [])
        assert reply.is_closed
        assert caught.value

    def test_one_before_the_first_token_takes_the_question_back(self) -> None:
        played = Played(streamed(KeyboardInterrupt()))
        assert played.talk("Hello").messages == []

    def test_the_second_at_an_empty_prompt_ends(self) -> None:
        played = Played()
        with pytest.raises(KeyboardInterrupt):
            played.talk(KeyboardInterrupt, KeyboardInterrupt, "never")
        assert played.notes.getvalue() == "Ctrl-C again or Ctrl-D ends\n"

    def test_two_that_are_not_together_do_not(self) -> None:
        typed = iter(["", "some text", ""])
        played = Played(streamed(*whole("a")), streamed(*whole("b")))
        lines = (KeyboardInterrupt, KeyboardInterrupt, KeyboardInterrupt, "Hello")
        played.talk(*lines, typed=lambda: next(typed))
        assert played.bodies[0]["messages"] == [USER]
        played.talk(KeyboardInterrupt, "one", KeyboardInterrupt)

    def test_one_drops_the_lines_so_far(self) -> None:
        played = Played(streamed(*whole("a")))
        played.talk("dropped\\", KeyboardInterrupt, "Hello")
        assert played.bodies[0]["messages"] == [USER]

    def test_what_is_no_text_is_typed_again(self) -> None:
        played = Played(streamed(*whole("a")))
        played.talk("\udcff", "Hello")
        assert "error: what was typed is not text" in played.notes.getvalue()
        assert played.bodies[0]["messages"] == [USER]


def _interrupt() -> None:
    raise KeyboardInterrupt


class TestFailures:
    @pytest.mark.parametrize(
        ("reply", "told"),
        [
            (refused(401, "No key."), "No key. Give the key with --api-key, or in the variable"),
            (refused(400, "Too\n long."), "Too  long."),
            (refused(503, "Draining."), "Draining."),
            (refused(503, "Later.", retry_after="Fri, 31 Dec 1999 23:59:59 GMT"), "Later."),
            (httpx.Response(404, json={"detail": "Not Found"}), "Not Found"),
            (httpx.Response(400, json={"error": "no such model"}), "no such model"),
            (httpx.Response(502, text="<html>"), "the server answers with status 502"),
            (httpx.Response(500, json=[[]]), "the server answers with status 500"),
            (httpx.Response(500, content=b"[" * 60_000), "the server answers with status 500"),
            (httpx.Response(307), "the server answers with status 307"),
            (httpx.Response(200, json={}), "the server does not stream; is --url"),
            (httpx.ConnectError("secret"), "cannot connect to http://127.0.0.1:8000; start a server"
             " with `caravan serve`, or"),
            (httpx.ConnectTimeout("secret"), "cannot connect to http://127.0.0.1:8000"),
            (httpx.ReadError("secret"), "the connection to the server broke"),
            (httpx.ReadTimeout("secret"), f"the server was silent for {SILENCE_S:g} seconds"),
        ],
    )  # fmt: skip
    def test_before_the_answer(self, reply: httpx.Response | Exception, told: str) -> None:
        played = Played(reply)
        assert played.talk("Hello").messages == []
        first, last = played.notes.getvalue().splitlines()
        assert first.startswith(f"error: {told}")
        assert last == "not answered: /retry asks again"

    @pytest.mark.parametrize(
        ("chunks", "told"),
        [
            ([event({"error": {"message": "Out of pages."}}), DONE], "Out of pages."),
            ([event({"error": "Out of pages."})], "Out of pages."),
            ([event({"error": {}})], "the server broke the answer off with an error"),
            ([b"data: {nonsense\n\n"], "the server sent an event that is no part of an answer"),
            ([event([])], "the server sent an event that is no part"),
            ([event({"choices": [{"delta": {"content": 7}}]})], "the server sent an event"),
            ([b"data: " + b"[" * 100_000 + b"\n\n"], "the server sent an event"),
            ([httpx.ReadError("secret")], "the connection to the server broke"),
            ([httpx.ReadTimeout("secret")], "the server was silent"),
            ([], "the server ended the answer before it was complete"),
            ([b"data: [DONE]"], "the server ended the answer"),
        ],
    )
    def test_in_the_middle_of_it_what_came_stays(
        self, chunks: list[bytes | BaseException], told: str
    ) -> None:
        played = Played(streamed(said("Once"), *chunks), streamed(*whole("b")))
        talk = played.talk("Hello", "next")
        assert [m["content"] for m in talk.messages] == ["Hello", "Once", "next", "b"]
        assert played.shown == "Once\nb\n"
        assert played.notes.getvalue().startswith(f"error: {told}")
        assert played.notes.getvalue().count("\n") == 1

    def test_an_end_without_done_is_one_after_a_finish_reason(self) -> None:
        played = Played(streamed(said("Once", "stop")))
        played.talk("Hello")
        assert played.notes.getvalue() == ""

    def test_a_model_that_is_loading_is_waited_for(self) -> None:
        played = Played(
            refused(503, "Loading (50%).", retry_after="5"),
            streamed(*whole("Hi")),
            models=[
                refused(503, "Loading (10%).", retry_after="5"),
                refused(503, "Loading (10%).", retry_after="0"),
                refused(503, "Loading (20%).", retry_after="99999999999"),
            ],
        )
        played.talk("Hello")
        assert played.shown == "Hi\n"
        assert played.slept == [5, 1, 30, 5]
        assert played.notes.getvalue() == "Loading (10%).\nLoading (20%).\nLoading (50%).\n"

    @pytest.mark.parametrize(
        ("reply", "told"),
        [
            (httpx.Response(200, json={"data": []}), "lists no model; name one with --model"),
            (httpx.Response(200, text="<html>"), "does not list models"),
            (httpx.Response(200, json={"data": [{"name": "x"}]}), "does not list models"),
        ],
    )
    def test_models_that_are_none(self, reply: httpx.Response, told: str) -> None:
        with pytest.raises(ChatFailed, match=told):
            Played(models=[reply]).client().model()


class TestHarmless:
    def test_control_characters_of_a_model_do_not_reach_the_terminal(self) -> None:
        hostile = "a\x1b]52;c;aGk=\x07\r\x7f\x9b2J\x00\ud800\tb\n"
        played = Played(streamed(said(hostile, "stop")), streamed(*whole("x")))
        played.talk("Hello", "next")
        shown = "a␛]52;c;aGk=␇␍␡\N{REPLACEMENT CHARACTER}2J␀\N{REPLACEMENT CHARACTER}\tb\n"
        assert played.shown == shown + "x\n"
        sent = played.bodies[1]["messages"][1]["content"]
        assert sent == hostile.replace("\ud800", "\N{REPLACEMENT CHARACTER}")

    def test_nor_do_those_of_an_error_or_a_models_name(self) -> None:
        played = Played(refused(400, "\x1b[2J[red]a[/red]"))
        client = played.client(model="\x1bname")
        played.talk("Hello", client=client)
        played.screen.note("\x1bname\nis")
        assert "error: ␛[2J[red]a[/red]\n" in played.notes.getvalue()
        assert "␛name is\n" in played.notes.getvalue()

    def test_every_control_character(self) -> None:
        every = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0), 0xD800, 0xDFFF]))
        text = harmless(every)
        assert len(text) == len(every)
        assert [c for c in text if not c.isprintable()] == ["\t", "\n"]
        assert harmless("üé漢🦙") == "üé漢🦙"

    def test_a_terminal_without_unicode_gets_question_marks(self) -> None:
        played = Played(streamed(*whole("aü")))
        latin = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        played.screen.answers = latin
        played.talk("Hello")
        latin.seek(0)
        assert latin.read() == "a?\n"


class TestEvents:
    def test_any_chunks_give_the_same(self) -> None:
        stream = (
            "\ufeffdata: ü漢🦙\r\n\r\n: ping\n\n"
            "data: a\r\ndata: b\r\n\r\n"
            "event: x\nid: 1\ndata:one\ndata\ndata:  two\n\n"
            ": ping\r\r"
            "data: three\r\rretry: 3\n\n"
            "data: never complete"
        ).encode()
        expected = ["ü漢🦙", "a\nb", "one\n\n two", "three"]
        for size in range(1, len(stream) + 1):
            reader = EventReader()
            chunks = [stream[i : i + size] for i in range(0, len(stream), size)]
            assert [data for chunk in chunks for data in reader.push(chunk)] == expected, size

    def test_pings_and_split_characters_in_an_answer(self) -> None:
        data = b": ping\n\n" + event({"choices": []}) + said("").replace(b'""', '"🦙ü"'.encode())
        stream = data + usage(1) + DONE
        played = Played(streamed(*(bytes([byte]) for byte in stream)))
        played.talk("Hello")
        assert played.shown == "🦙ü\n"


class TestImages:
    @pytest.mark.parametrize(
        ("data", "kind"),
        [
            (b"\xff\xd8\xff\xe0", "jpeg"),
            (PNG, "png"),
            (b"GIF87a", "gif"),
            (b"GIF89a", "gif"),
            (b"RIFF\0\0\0\0WEBP", "webp"),
        ],
    )
    def test_the_content_says_the_type(self, data: bytes, kind: str, tmp_path: Path) -> None:
        path = tmp_path / "image.txt"
        path.write_bytes(data)
        part: Any = image_part(str(path))
        assert part["image_url"]["url"].startswith(f"data:image/{kind};base64,")
        assert is_image_path(str(path))

    def test_what_is_refused_is_named(self, tmp_path: Path) -> None:
        text, large = tmp_path / "text.png", tmp_path / "large.png"
        text.write_bytes(b"RIFF\0\0\0\0WAVE")
        with large.open("wb") as file:
            file.write(PNG)
            file.truncate(MAX_IMAGE_BYTES + 1)
        for path, reason in (
            (text, "neither a JPEG nor a PNG, WebP or GIF file"),
            (large, f"more than {MAX_IMAGE_BYTES} bytes"),
            (tmp_path, "is no file"),
            (tmp_path / "none.png", "is no file"),
            (tmp_path / ("n" * 300), "cannot be read"),
        ):
            with pytest.raises(ConfigError, match=reason) as caught:
                image_part(str(path))
            assert str(path) in str(caught.value)

    def test_the_largest_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "large.png"
        with path.open("wb") as file:
            file.write(PNG)
            file.truncate(MAX_IMAGE_BYTES)
        image_part(str(path))

    @pytest.mark.parametrize("text", ["Hello", "n" * 5000, "a\0b", "it's", "~nobody-here/x", "/"])
    def test_messages_are_no_paths(self, text: str) -> None:
        assert not is_image_path(text)


class TestOnce:
    def test_only_the_answer_is_printed(self, png: Path) -> None:
        played = Played(streamed(*whole("Lima")))
        image = image_part(str(png))
        chat.answer_once(played.client(), played.screen, "Be brief.", "Capital?", [image])
        assert played.output.getvalue() == "Lima\n"
        assert played.notes.getvalue() == ""
        system, user = played.bodies[0]["messages"]
        assert system == {"role": "system", "content": "Be brief."}
        assert user["content"] == [image, {"type": "text", "text": "Capital?"}]

    def test_a_picture_may_stand_alone(self, png: Path) -> None:
        played = Played(streamed(*whole("Lima")))
        image = image_part(str(png))
        chat.answer_once(played.client(), played.screen, None, "", [image])
        assert played.bodies[0]["messages"] == [{"role": "user", "content": [image]}]

    def test_a_failure_is_raised_after_what_came(self) -> None:
        played = Played(streamed(said("On"), event({"error": {"message": "No."}})))
        with pytest.raises(ChatFailed, match=r"No\."):
            chat.answer_once(played.client(), played.screen, None, "Hello", [])
        assert played.output.getvalue() == "On\n"


class TestCommandLine:
    def test_nobody_there_is_one_line_and_status_1(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["chat", "Hello", "--url", "http://127.0.0.1:1"]) == 1
        out, error = capsys.readouterr()
        assert out == ""
        assert error.startswith("caravan: error: cannot connect to http://127.0.0.1:1; start a ser")
        assert error.count("\n") == 1

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["Hello", "--url", "localhost:8000"], "--url must begin with http:// or https://"),
            (["Hello", "--url", "http://[::1"], "--url is not a URL"),
            (["Hello", "--url", "http://u:p@host"], "--url must have no password"),
            (["Hello", "--url", "http://host:99999"], "a port that exists"),
            (["Hello", "--url", "http://a..b"], "--url has a host that no server can have"),
            (["Hello", "--api-key", "ü"], "--api-key has characters that a header"),
            (["Hello", "--api-key", "a\nb"], "--api-key has characters that a header"),
            (["Hello", "--api-key", ""], "--api-key is empty"),
            (["Hello", "--system", "\udcff"], "--system is not UTF-8"),
            (["\udcff"], "PROMPT is not UTF-8"),
            ([" "], "there is no prompt"),
            (["Hello", "--image", "/nonexistent"], "/nonexistent is no file"),
        ],
    )
    def test_a_wrong_flag_is_one_line_and_status_2(
        self, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["chat", *arguments]) == 2
        out, error = capsys.readouterr()
        assert out == ""
        assert told in error
        assert error.count("\n") == 1

    def test_nothing_piped_in(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
        assert main(["chat"]) == 2
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff"), encoding="utf-8"))
        assert main(["chat"]) == 2
        assert "what is piped in is not text" in capsys.readouterr().err

    def test_the_url_may_have_what_clients_of_openai_are_given(self) -> None:
        for url in ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/", "http://127.0.0.1:8000"):
            played = Played()
            played.client(url=url).model()
            assert str(played.requests[0].url) == "http://127.0.0.1:8000/v1/models"
        played = Played()
        played.client(url="https://example.com/some/v1/").model()
        assert str(played.requests[0].url) == "https://example.com/some/v1/models"

    def test_a_proxy_leads_elsewhere_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ALL_PROXY", "gopher://proxy")

        def connect(url: str) -> None:
            ChatClient(url, None, None, {}, notify=print)

        for url in ("http://127.0.0.1", "http://[::1]", "http://localhost"):
            connect(url)
        with pytest.raises(ConfigError, match="a proxy that cannot be used"):
            connect("http://example.com")

    def test_the_key_is_the_flags_or_the_environments(self) -> None:
        ours, theirs = {"CARAVAN_API_KEY": "ours\n"}, {"OPENAI_API_KEY": "theirs"}
        assert chat.found_key("flag", ours | theirs) == "flag"
        assert chat.found_key(None, ours | theirs) == "ours"
        assert chat.found_key(None, theirs | {"CARAVAN_API_KEY": ""}) == "theirs"
        assert chat.found_key(None, {}) is None

    def test_help_loads_little(self) -> None:
        code = (
            "import sys; from caravan.cli import main\n"
            "try: main(['chat', '--help'])\n"
            "except SystemExit: pass\n"
            "loaded = {'torch', 'fastapi', 'starlette', 'openai', 'PIL'} & set(sys.modules)\n"
            "assert not loaded, loaded\n"
        )
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        flags = ("--url", "--api-key", "--model", "--system", "--image", "--temperature",
                 "--top-p", "--max-tokens", "--seed")  # fmt: skip
        assert all(f"\n  {flag} " in result.stdout for flag in flags)
