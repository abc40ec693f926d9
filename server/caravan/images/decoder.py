"""Decodes pictures in child processes, so that a hostile file can hurt only one of them.

A child has one end of a socket as stdin and stdout. On it go frames: four bytes of length and a
message in msgpack. The child says an empty frame when it is ready; then a `Request` has one
`Reply`. A child that is late, or whose caller is gone, is killed, so no reply can meet the wrong
caller. What comes from a child is checked like what comes from a client.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import subprocess
import sys

import msgspec

from caravan.config import ImageConfig
from caravan.errors import Draining, ImageParseError, InternalError, InvalidImage
from caravan.tiles import TiledImage, TileLayout

logger = logging.getLogger(__name__)

LENGTH = struct.Struct("<I")  # of a frame, in bytes

_CLOSED = "The server is shutting down and takes no new requests."
_START_S = 60.0  # an idle machine needs 0.3 s
_FRAME_BYTES = 1 << 16  # of a reply besides its tiles, or of an error

# Python and Pillow, and their shared libraries: 40 MiB of addresses.
_BASE_BYTES = 256 << 20
# Resident at 40 million pixels: 8 for JPEG, 12 for transparent PNG, 16 for WebP, the dearest (two
# canvases of its decoder, the picture and its RGB): kernels/bench/pictures.py. Addresses are more.
_BYTES_PER_PIXEL = 32
_COPIES_OF_FILE = 4  # frame, message, the stream over it, and what a reader keeps


class Request(msgspec.Struct, frozen=True):
    """parent -> child: the arguments of `tile_image`."""

    data: bytes
    layout: TileLayout
    max_tiles: int
    max_pixels: int


class Tiled(msgspec.Struct, frozen=True, tag="tiled"):
    """child -> parent: what became of the picture."""

    image: TiledImage


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """child -> parent: the `InvalidImage` of this code."""

    code: str
    message: str


Reply = Tiled | Refused

_encoder = msgspec.msgpack.Encoder()
_reply_decoder: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)
_ERRORS = {kind.code: kind for kind in InvalidImage.__subclasses__()}


class ImageDecoder:
    """At most `workers` children, started when they are needed and kept. One event loop's."""

    def __init__(self, config: ImageConfig, layout: TileLayout, workers: int = 2) -> None:
        self._config = config
        self._layout = layout
        self._workers = workers
        self._turns = asyncio.Semaphore(workers)  # first come, first served
        self._children: set[_Child] = set()
        self._idle: list[_Child] = []
        self._reaping: set[asyncio.Task[None]] = set()
        self._closed = False

    async def decode(self, data: bytes, max_tiles: int) -> TiledImage:
        """The picture in `data`, on at most `max_tiles` tiles and a global one.

        Waits for a free child; then it takes `image_timeout` at most. Raises InvalidImage,
        Draining after `aclose`, InternalError if no child can be started.
        """
        pixels = self._config.max_image_pixels
        request = Request(data, self._layout, max_tiles, pixels)
        async with self._turns:
            child = await self._free_child()
            answered = False
            try:
                async with asyncio.timeout(self._config.image_timeout):
                    frame = await child.ask(_encoder.encode(request))
                reply = self._checked(frame, max_tiles)
                answered = True
            except TimeoutError:
                seconds = self._config.image_timeout
                raise ImageParseError(f"takes more than {seconds:g} s to decode") from None
            except (EOFError, OSError, msgspec.MsgspecError):
                if self._closed:
                    raise Draining(_CLOSED) from None
                logger.warning("an image decoder failed; the next image gets a new one")
                raise ImageParseError("cannot be decoded") from None
            finally:
                if answered:
                    self._idle.append(child)
                else:
                    self._retire(child)
        if isinstance(reply, Refused):
            raise _ERRORS[reply.code](reply.message)
        return reply.image

    async def aclose(self) -> None:
        """Kills every child, and returns when none is left; who waits for one gets Draining."""
        if self._closed:
            return
        self._closed = True
        for child in self._children:
            child.kill()
        for _ in range(self._workers):  # whoever was served has heard of it
            await self._turns.acquire()
        for _ in range(self._workers):
            self._turns.release()
        for child in self._idle:
            self._retire(child)
        self._idle.clear()
        await asyncio.gather(*self._reaping)

    async def _free_child(self) -> _Child:
        while self._idle and not self._closed:
            child = self._idle.pop()
            if child.lives():
                return child
            self._retire(child)  # the system killed it while it had nothing to do
        if self._closed:
            raise Draining(_CLOSED)
        try:
            return await self._start()
        except (EOFError, OSError):  # TimeoutError is one
            if self._closed:
                raise Draining(_CLOSED) from None
            logger.error("an image decoder did not start")
            raise InternalError("The image decoder did not start.") from None

    async def _start(self) -> _Child:
        child = _Child(_memory_limit(self._config), self._reply_limit())
        self._children.add(child)
        ready = False
        try:
            async with asyncio.timeout(_START_S):
                if await child.receive():
                    raise EOFError
            ready = True
        finally:
            if not ready:
                self._retire(child)
        return child

    def _retire(self, child: _Child) -> None:
        """Ends the child now; a task waits until the system has let go of it."""
        child.close()
        task = asyncio.create_task(self._reap(child))
        self._reaping.add(task)
        task.add_done_callback(self._reaping.discard)

    async def _reap(self, child: _Child) -> None:
        await asyncio.to_thread(child.wait)
        self._children.discard(child)

    def _tile_bytes(self) -> int:
        return 3 * self._layout.tile_size**2

    def _reply_limit(self) -> int:
        return (self._layout.max_tiles + 1) * self._tile_bytes() + _FRAME_BYTES

    def _checked(self, frame: bytearray, max_tiles: int) -> Reply:
        """The reply; if it is none, MsgspecError, as if the child had sent garbage."""
        reply = _reply_decoder.decode(frame)
        if isinstance(reply, Refused):
            fits = reply.code in _ERRORS
        else:
            image, grid = reply.image, reply.image.grid
            fits = (
                grid.rows >= 1
                and grid.columns >= 1
                and grid.rows * grid.columns <= min(max_tiles, self._layout.max_tiles)
                and len(image.tiles) == grid.num_tiles
                and all(len(tile) == self._tile_bytes() for tile in image.tiles)
                and len(image.key) == 32
            )
        if not fits:
            raise msgspec.ValidationError
        return reply


class _Child:
    """A process, and our end of its socket."""

    def __init__(self, memory_limit: int, reply_limit: int) -> None:
        self._reply_limit = reply_limit
        self._socket, theirs = socket.socketpair()
        try:
            # -P: the working directory is not a place to import from.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "caravan.images", str(memory_limit)],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
            )
        except BaseException:
            self._socket.close()
            raise
        finally:
            theirs.close()
        self._socket.setblocking(False)

    async def ask(self, frame: bytes) -> bytearray:
        """The frame that answers this one. Raises EOFError or OSError if the child ends."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._socket, LENGTH.pack(len(frame)))
        await loop.sock_sendall(self._socket, frame)
        return await self.receive()

    async def receive(self) -> bytearray:
        """One frame. Raises EOFError or OSError if the child ends, or sends too much."""
        (size,) = LENGTH.unpack(await self._exactly(LENGTH.size))
        if size > self._reply_limit:
            raise EOFError
        return await self._exactly(size)

    async def _exactly(self, size: int) -> bytearray:
        loop = asyncio.get_running_loop()
        buffer = bytearray(size)
        missing = memoryview(buffer)
        while missing:
            count = await loop.sock_recv_into(self._socket, missing)
            if not count:
                raise EOFError
            missing = missing[count:]
        return buffer

    def lives(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Ends the process; whoever waits for its reply gets EOFError."""
        self._process.kill()

    def close(self) -> None:
        """Ends the process and closes the socket, on which nobody may wait any more."""
        self._process.kill()
        self._socket.close()

    def wait(self) -> None:
        """Blocks until the process has ended."""
        self._process.wait()


def _memory_limit(config: ImageConfig) -> int:
    """Bytes of addresses that a child may have; a bomb that gets past the header ends here."""
    return (
        _BASE_BYTES
        + _BYTES_PER_PIXEL * config.max_image_pixels
        + _COPIES_OF_FILE * config.max_image_bytes
    )
