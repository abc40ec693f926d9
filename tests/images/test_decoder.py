"""Child processes that decode: what happens to them, and to their callers."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from PIL import Image

from caravan.config import ImageConfig
from caravan.errors import (
    Draining,
    EmptyImageFile,
    ImageParseError,
    ImageTooLarge,
    InternalError,
    UnsupportedImageMediaType,
)
from caravan.images import decoder as module
from caravan.images.decode import tile_image
from caravan.images.decoder import LENGTH, ImageDecoder
from caravan.tiles import TiledImage, TileLayout
from meta_images import photographs

LAYOUT = TileLayout()
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def png(width: int, height: int, colour: str = "teal") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


SMALL = png(20, 10)
LARGE = png(6000, 6000)  # takes a second


def directly(data: bytes, max_tiles: int = 16) -> TiledImage:
    return tile_image(data, LAYOUT, max_tiles, ImageConfig().max_image_pixels)


def children() -> list[int]:
    """Every process of ours, zombies too."""
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]


def processes(decoder: ImageDecoder) -> list[subprocess.Popen[bytes]]:
    return [child._process for child in decoder._children]


@asynccontextmanager
async def decoding(
    workers: int = 2, layout: TileLayout = LAYOUT, **settings: Any
) -> AsyncIterator[ImageDecoder]:
    """A decoder; afterwards none of its processes is left, not even as a zombie."""
    decoder = ImageDecoder(ImageConfig(**settings), layout, workers)
    started: list[subprocess.Popen[bytes]] = []
    try:
        yield decoder
        started = processes(decoder)
    finally:
        await decoder.aclose()
    assert all(process.returncode is not None for process in started)
    assert processes(decoder) == []


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def busy(decoder: ImageDecoder, data: bytes = LARGE) -> asyncio.Task[TiledImage]:
    """A decode that has reached its child, which was warm."""
    await decoder.decode(SMALL, 16)
    task = asyncio.create_task(decoder.decode(data, 16))
    await until(lambda: not decoder._idle)
    await asyncio.sleep(0.05)
    assert not task.done()
    return task


async def test_a_picture_becomes_what_it_becomes_here() -> None:
    async with decoding() as decoder:
        for data in (SMALL, *(path.read_bytes() for path in photographs())):
            for max_tiles in (1, 16):
                assert await decoder.decode(data, max_tiles) == directly(data, max_tiles)


def everything_under(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def main() -> None:
        await test_a_picture_becomes_what_it_becomes_here()
        await test_a_late_picture_is_given_up()
        await test_a_caller_who_leaves_takes_its_child_along()
        await test_a_child_that_is_killed_fails_its_caller_only()
        await test_a_closed_decoder_drains()

    run(main())


def test_the_same_under_uvloop() -> None:
    everything_under(uvloop.run)


async def test_many_pictures_at_once_get_their_own_tiles() -> None:
    pictures = [
        png(10 + number, 40 - number, f"hsl({9 * number}, 90%, 40%)") for number in range(30)
    ]
    async with decoding(workers=3) as decoder:
        found = await asyncio.gather(*(decoder.decode(data, 16) for data in pictures))
        assert len(processes(decoder)) == 3
    assert found == [directly(data) for data in pictures]
    assert len({image.key for image in found}) == 30


async def test_who_comes_first_is_served_first() -> None:
    order: list[int] = []

    async def ask(decoder: ImageDecoder, number: int) -> None:
        await decoder.decode(SMALL, 16)
        order.append(number)

    async with decoding(workers=1) as decoder:
        await asyncio.gather(*(ask(decoder, number) for number in range(12)))
    assert order == list(range(12))


async def test_children_are_started_when_needed_and_kept() -> None:
    async with decoding() as decoder:
        assert processes(decoder) == []
        await decoder.decode(SMALL, 16)
        (first,) = processes(decoder)
        await decoder.decode(SMALL, 16)
        assert processes(decoder) == [first]


async def test_errors_keep_their_class_and_message() -> None:
    async with decoding(max_image_pixels=1499) as decoder:
        with pytest.raises(EmptyImageFile, match=r"^is empty$"):
            await decoder.decode(b"", 16)
        with pytest.raises(UnsupportedImageMediaType, match=r"^is neither"):
            await decoder.decode(b"<svg/>", 16)
        with pytest.raises(ImageTooLarge, match=r"^has 50 x 30 pixels, 1500; the limit is 1499$"):
            await decoder.decode(png(50, 30), 16)
        with pytest.raises(ImageParseError, match=r"^is damaged or ends too early$"):
            await decoder.decode(SMALL[:60], 16)
        assert await decoder.decode(SMALL, 16) == directly(SMALL)
        assert len(processes(decoder)) == 1, "none of this costs a child"


async def test_a_child_that_is_killed_fails_its_caller_only() -> None:
    async with decoding(workers=1) as decoder:
        task = await busy(decoder)
        (process,) = processes(decoder)
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(ImageParseError, match=r"^cannot be decoded$"):
            await task
        assert await decoder.decode(SMALL, 16) == directly(SMALL)
        await until(lambda: process not in processes(decoder))
        assert process.returncode == -signal.SIGKILL


async def test_a_child_that_was_killed_while_idle_fails_nobody() -> None:
    async with decoding(workers=1) as decoder:
        await decoder.decode(SMALL, 16)
        (process,) = processes(decoder)
        os.kill(process.pid, signal.SIGKILL)
        await asyncio.to_thread(process.wait)
        assert await decoder.decode(SMALL, 16) == directly(SMALL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_signals_of_a_group_do_not_end_a_child(number: signal.Signals) -> None:
    async with decoding(workers=1) as decoder:
        await decoder.decode(SMALL, 16)
        (process,) = processes(decoder)
        os.kill(process.pid, number)
        assert await decoder.decode(SMALL, 16) == directly(SMALL)
        assert processes(decoder) == [process]


async def test_a_late_picture_is_given_up() -> None:
    async with decoding(workers=1) as decoder:
        await decoder.decode(SMALL, 16)
        (process,) = processes(decoder)
        decoder._config = ImageConfig(image_timeout=0.25)
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(ImageParseError, match=r"^takes more than 0.25 s to decode$"):
            await decoder.decode(SMALL, 16)
        await until(lambda: process not in processes(decoder))
        decoder._config = ImageConfig()
        assert await decoder.decode(SMALL, 16) == directly(SMALL)


async def test_a_large_picture_is_given_up() -> None:
    async with decoding(workers=1, image_timeout=0.001) as decoder:
        with pytest.raises(ImageParseError, match=r"^takes more than 0.001 s to decode$"):
            await decoder.decode(LARGE, 16)


async def test_a_caller_who_leaves_takes_its_child_along() -> None:
    async with decoding(workers=1) as decoder:
        task = await busy(decoder)
        (process,) = processes(decoder)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        photograph = photographs()[0].read_bytes()
        assert await decoder.decode(photograph, 16) == directly(photograph)
        await until(lambda: process not in processes(decoder))


async def test_a_caller_may_leave_at_any_moment() -> None:
    """While it waits, while a child starts, while it decodes, or when its reply is here."""
    async with decoding(workers=2) as decoder:
        for number in range(25):
            colour = f"hsl({14 * number}, 80%, 50%)"
            waiting = [asyncio.create_task(decoder.decode(png(90, 50), 16)) for _ in range(3)]
            await asyncio.sleep(0.004 * number)
            for task in waiting:
                task.cancel()
            data = png(50 + number, 90, colour)
            assert await decoder.decode(data, 16) == directly(data)
            for task in waiting:
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        assert len(decoder._idle) <= 2


async def test_a_closed_decoder_drains() -> None:
    async with decoding(workers=1) as decoder:
        served = await busy(decoder)
        waiting = asyncio.create_task(decoder.decode(SMALL, 16))
        await asyncio.sleep(0)
        await decoder.aclose()
        for task in (served, waiting):
            with pytest.raises(Draining):
                await task
        with pytest.raises(Draining):
            await decoder.decode(SMALL, 16)
        await decoder.aclose()


async def test_a_decoder_may_be_closed_while_a_child_starts() -> None:
    async with decoding(workers=2) as decoder:
        tasks = [asyncio.create_task(decoder.decode(SMALL, 16)) for _ in range(4)]
        await until(lambda: len(processes(decoder)) == 2)
        await decoder.aclose()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, Draining) for result in results)


@LINUX
async def test_no_process_is_left() -> None:
    before = children()
    async with decoding(workers=2) as decoder:
        await asyncio.gather(*(decoder.decode(SMALL, 16) for _ in range(5)))
        assert len(children()) == len(before) + 2
    assert children() == before


@LINUX
async def test_a_child_has_no_torch_and_a_limit() -> None:
    async with decoding(workers=1) as decoder:
        await decoder.decode(photographs()[0].read_bytes(), 16)
        (process,) = processes(decoder)
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        assert "_imaging" in maps, "Pillow"
        assert not [word for word in ("torch", "numpy", "numba", "triton") if word in maps]
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        (line,) = [line for line in limits.splitlines() if line.startswith("Max address space")]
        assert line.split()[3:5] == [str(module._memory_limit(ImageConfig()))] * 2


@LINUX
async def test_a_picture_that_needs_too_much_memory_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_memory_limit", lambda _: 160 << 20)
    async with decoding(workers=1) as decoder:
        for _ in range(2):
            with pytest.raises(ImageParseError, match=r"^needs too much memory to decode$"):
                await decoder.decode(LARGE, 16)
        assert await decoder.decode(SMALL, 16) == directly(SMALL)


@LINUX
async def test_the_largest_picture_has_the_memory_it_needs() -> None:
    """The dearest format: WebP with an alpha channel that is upright only when turned."""
    exif = Image.Exif()
    exif[0x112] = 6
    stream = io.BytesIO()
    picture = Image.linear_gradient("L").resize((2000, 1000)).convert("RGBA")
    picture.putalpha(Image.radial_gradient("L").resize((2000, 1000)))
    picture.save(stream, "WEBP", lossless=True, method=0, quality=0, exif=exif)
    async with decoding(workers=1, max_image_pixels=2_000_000) as decoder:
        decoder_limit = module._memory_limit(ImageConfig(max_image_pixels=2_000_000))
        assert decoder_limit < 512 << 20
        assert await decoder.decode(stream.getvalue(), 16) == directly(stream.getvalue())


async def test_the_event_loop_goes_on_meanwhile() -> None:
    async with decoding(workers=1) as decoder:
        task = await busy(decoder)
        ticks = 0
        while not task.done():
            await asyncio.sleep(0.001)
            ticks += 1
        await task
    assert ticks > 20


# --- a child that misbehaves ----------------------------------------------------------------------

READY = LENGTH.pack(0)
LIES = {
    "exits": "",
    "garbage": "out(struct.pack('<I', 3) + b'abc')",
    "too much": "out(struct.pack('<I', 1 << 31))",
    "half a frame": "out(struct.pack('<I', 100) + b'abc')",
    "no tiles": "reply(type='tiled', image=dict(key=bytes(32), tiles=[], grid=GRID))",
    "short tiles": "reply(type='tiled', image=dict(key=bytes(32), tiles=[b'abc'], grid=GRID))",
    "a short key": "reply(type='tiled', image=dict(key=b'', tiles=[bytes(338688)], grid=GRID))",
    "a large grid": (
        "reply(type='tiled', image=dict(key=bytes(32), tiles=[bytes(338688)] * 18,"
        " grid=dict(rows=1, columns=17)))"
    ),
    "an unknown error": "reply(type='refused', code='internal_error', message='x')",
}
CHILD = """
import os, struct, sys, msgspec
def out(data):
    while data:
        data = data[os.write(1, data):]
def reply(**fields):
    frame = msgspec.msgpack.encode(fields)
    out(struct.pack('<I', len(frame)) + frame)
GRID = dict(rows=1, columns=1)
out(bytes(4))
size, = struct.unpack('<I', sys.stdin.buffer.read(4))
sys.stdin.buffer.read(size)
"""


def replace_child(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    popen = subprocess.Popen

    def start(_: list[str], **streams: Any) -> subprocess.Popen[bytes]:
        return popen([sys.executable, "-c", script], **streams)

    monkeypatch.setattr(subprocess, "Popen", start)


@pytest.mark.parametrize("lie", LIES)
async def test_what_a_child_says_is_not_trusted(lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with decoding(workers=1) as decoder:
        with monkeypatch.context() as patch:
            replace_child(patch, CHILD + LIES[lie])
            with pytest.raises(ImageParseError, match=r"^cannot be decoded$"):
                await decoder.decode(SMALL, 16)
        assert await decoder.decode(SMALL, 16) == directly(SMALL)


@pytest.mark.parametrize("script", ["", "print('hello')", "raise SystemExit(3)"])
async def test_a_child_that_does_not_start_is_our_error(
    script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with decoding(workers=1) as decoder:
        with monkeypatch.context() as patch:
            replace_child(patch, script)
            with pytest.raises(InternalError):
                await decoder.decode(SMALL, 16)
        assert await decoder.decode(SMALL, 16) == directly(SMALL)


async def test_a_program_that_is_not_there_is_our_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async with decoding(workers=1) as decoder:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", "/nowhere/python")
            with pytest.raises(InternalError):
                await decoder.decode(SMALL, 16)
        assert await decoder.decode(SMALL, 16) == directly(SMALL)


# --- the child by itself --------------------------------------------------------------------------


def test_a_child_ends_with_its_input() -> None:
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "caravan.images", str(1 << 30)],
        input=b"",
        capture_output=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, READY, b"")


def test_what_is_printed_is_not_between_the_frames() -> None:
    script = (
        "import sys; from caravan.images import __main__ as child; serve = child.serve\n"
        "def talk(*streams):\n"
        "    print('hello', flush=True)\n"
        "    serve(*streams)\n"
        "child.serve = talk; sys.argv[1:] = [str(1 << 30)]; child.main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], input=b"", capture_output=True, timeout=60
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, READY, b"hello\n")


@LINUX
def test_children_end_with_their_parent() -> None:
    script = (
        "import asyncio, os, sys\n"
        "from caravan.config import ImageConfig\n"
        "from caravan.images.decoder import ImageDecoder\n"
        "from caravan.tiles import TileLayout\n"
        "async def main():\n"
        "    decoder = ImageDecoder(ImageConfig(), TileLayout(), 1)\n"
        "    await decoder.decode(sys.stdin.buffer.read(), 1)\n"
        "    (child,) = decoder._children\n"
        "    print(child._process.pid, flush=True)\n"
        "    os.kill(child._process.pid, 19)\n"  # it cannot notice that its input has ended
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], input=SMALL, capture_output=True, timeout=60
    )
    pid = int(ended.stdout)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state in "ZX":
            return  # whoever adopted it has not looked yet
        time.sleep(0.02)
    raise AssertionError("the child lives")


def test_the_length_is_four_bytes() -> None:
    assert struct.calcsize(LENGTH.format) == 4
