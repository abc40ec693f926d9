"""Pictures get to the server byte for byte, however they get to the page."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from page.chat import Chat
from page.page_server import PageServer

FORMATS = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp", "gif": "image/gif"}
GIVE = """([kind, files]) => {
  const transfer = new DataTransfer();
  for (const [name, type, data] of files) {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type }));
  }
  const options = { bubbles: true, cancelable: true };
  const target = kind === 'paste' ? document.getElementById('message') : document.body;
  const event = kind === 'paste'
    ? new ClipboardEvent('paste', { ...options, clipboardData: transfer })
    : new DragEvent(kind, { ...options, dataTransfer: transfer });
  target.dispatchEvent(event);
  return event.defaultPrevented;
}"""


def picture(format_: str, color: str = "red", size: int = 9) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size), color).save(file, format_)
    return file.getvalue()


def data_url(content: bytes, type_: str = "image/png") -> str:
    return f"data:{type_};base64,{base64.b64encode(content).decode()}"


def image_part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def given(name: str, type_: str, content: bytes) -> list[str]:
    return [name, type_, base64.b64encode(content).decode()]


def test_picked_files_of_every_format(page: Page, server: PageServer, tmp_path: Path) -> None:
    files = []
    for format_ in FORMATS:
        path = tmp_path / f"{format_}.bin"  # the bytes say what it is
        path.write_bytes(picture(format_))
        files.append(path)
    chat = Chat.ready(page, server)
    with page.expect_file_chooser() as chooser:
        chat.button("Add pictures").click()
    chooser.value.set_files(files)
    expect(chat.attachments).to_have_count(4)
    chat.ask("What is this?")
    parts = [image_part(data_url(picture(f), type_)) for f, type_ in FORMATS.items()]
    expected = [{"role": "user", "content": [*parts, {"type": "text", "text": "What is this?"}]}]
    assert server.body["messages"] == expected
    assert len(server.engine.submits[-1][0].images) == 4
    expect(chat.attachments).to_have_count(0)
    expect(page.locator(".turn.user img")).to_have_count(4)
    chat.ask("And now?")
    assert server.body["messages"][0] == expected[0], "pictures stay in the history"


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_pasted_and_dropped(page: Page, server: PageServer, kind: str) -> None:
    chat = Chat.ready(page, server)
    files = [given("a.png", "image/png", picture("png", color)) for color in ("red", "blue")]
    if kind == "drop":
        assert page.evaluate(GIVE, ["dragover", files]), "or the browser opens the file"
        assert "dropping" in (page.locator("body").get_attribute("class") or "")
    assert page.evaluate(GIVE, [kind, files])
    expect(chat.attachments).to_have_count(2)
    assert "dropping" not in (page.locator("body").get_attribute("class") or "")
    chat.message.press("Enter")
    chat.complete()
    parts = [image_part(data_url(picture("png", color))) for color in ("red", "blue")]
    assert server.body["messages"] == [{"role": "user", "content": parts}], "no text is none"


def test_pasted_text_is_text(page: Page, server: PageServer) -> None:
    Chat.ready(page, server)
    assert not page.evaluate(GIVE, ["paste", []])


def test_a_large_picture_is_not_scaled(page: Page, server: PageServer, tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.effect_noise((900, 900), 90).save(path)
    chat = Chat.ready(page, server)
    page.locator("#picker").set_input_files(path)
    expect(chat.attachments).to_have_count(1)
    chat.ask("?")
    assert server.body["messages"][0]["content"][0] == image_part(data_url(path.read_bytes()))


def test_what_is_no_picture_is_refused_by_name(page: Page, server: PageServer) -> None:
    bmp, svg = picture("bmp"), b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    files = [
        given("photo.bmp", "image/png", bmp),
        given("good.png", "", picture("png")),
        given("drawing.svg", "image/svg+xml", svg),
        given("empty.png", "image/png", b""),
    ]
    chat = Chat.ready(page, server)
    page.evaluate(GIVE, ["drop", files])
    for name in ("photo.bmp", "drawing.svg", "empty.png"):
        expect(chat.toast).to_contain_text(
            f"{name}: only PNG, JPEG, WebP and GIF pictures can be sent."
        )
    expect(chat.toast).not_to_contain_text("good.png")
    expect(chat.attachments).to_have_count(1)


def test_pictures_can_be_removed(page: Page, server: PageServer) -> None:
    chat = Chat.ready(page, server)
    files = [given(f"{c}.png", "image/png", picture("png", c)) for c in ("red", "green", "blue")]
    page.evaluate(GIVE, ["drop", files])
    chat.button("Remove green.png").click()
    expect(chat.attachments).to_have_count(2)
    chat.ask("Hi")
    urls = [part["image_url"]["url"] for part in server.body["messages"][0]["content"][:2]]
    assert urls == [data_url(picture("png", color)) for color in ("red", "blue")]


def test_an_edited_message_keeps_its_pictures(page: Page, server: PageServer) -> None:
    chat = Chat.ready(page, server)
    page.evaluate(GIVE, ["drop", [given("a.png", "image/png", picture("png"))]])
    chat.ask("Hi")
    chat.button("Edit").click()
    expect(chat.attachments).to_have_count(1)
    chat.ask("Again")
    assert server.body["messages"][0]["content"][0] == image_part(data_url(picture("png")))


def test_a_picture_that_the_server_refuses(
    page: Page, server: PageServer, expected_statuses: set[int]
) -> None:
    expected_statuses.add(400)
    chat = Chat.ready(page, server)
    page.evaluate(GIVE, ["drop", [given("cut.png", "image/png", picture("png", size=90)[:60])]])
    chat.ask("Hi")
    expect(page.get_by_role("alert")).to_contain_text("messages[0].content[0].image_url")


def decoded(url: str) -> Image.Image:
    head, _, data = url.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def test_the_example_pictures_show_what_they_say(page: Page, server: PageServer) -> None:
    chat = Chat.ready(page, server)
    for name in ("A red circle left of a blue square", "Three green triangles", "A digit by hand"):
        page.locator("#gallery").get_by_role("button", name=name).click()
    chat.button("Example pictures").click()
    page.locator("#samples").get_by_role("button", name="Two pictures to compare").click()
    expect(page.locator("#samples")).to_be_hidden()
    expect(chat.attachments).to_have_count(5)
    chat.ask("Hi")
    content = server.body["messages"][0]["content"]
    circle, triangles, digit, round_one, star = (
        decoded(p["image_url"]["url"]) for p in content[:5]
    )
    assert {image.size for image in (circle, triangles, digit, round_one, star)} == {(336, 336)}
    assert circle.getpixel((94, 168)) == (0xD6, 0x3A, 0x2F)
    assert circle.getpixel((40, 115)) == (255, 255, 255), "a square would reach this corner"
    assert circle.getpixel((190, 116)) == (0x2B, 0x62, 0xC9), "and this one does"
    for point in ((92, 120), (238, 150), (136, 270)):
        assert triangles.getpixel(point) == (0x2E, 0x94, 0x48)
    assert digit.getpixel((150, 268)) == (0x1C, 0x23, 0x30)
    assert round_one.getpixel((168, 250)) == (0xF0, 0x8A, 0x24)
    assert star.getpixel((168, 250)) == (255, 255, 255), "between two of its points"
    assert star.getpixel((168, 60)) == (0xF0, 0x8A, 0x24)


def test_the_question_about_a_picture_brings_it(page: Page, server: PageServer) -> None:
    chat = Chat.ready(page, server)
    chat.button("What is in the picture?").click()
    chat.complete()
    picture_part, text = server.body["messages"][0]["content"]
    assert text == {"type": "text", "text": "What is in the picture?"}
    assert decoded(picture_part["image_url"]["url"]).getpixel((94, 168)) == (0xD6, 0x3A, 0x2F)
