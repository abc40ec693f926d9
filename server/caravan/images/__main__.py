"""`python -m caravan.images MEMORY_LIMIT`: decodes pictures. `decoder.py` starts it."""

from __future__ import annotations

import logging
import os
import sys
from typing import BinaryIO

import msgspec

from caravan import child_process, logs
from caravan.errors import ImageParseError, InvalidImage
from caravan.images.decode import tile_image
from caravan.images.decoder import LENGTH, Refused, Reply, Request, Tiled

logger = logging.getLogger("caravan.images")


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answers every frame of `requests` in turn, until it ends."""
    decoder = msgspec.msgpack.Decoder(Request)
    encoder = msgspec.msgpack.Encoder()
    _send(replies, b"")  # ready
    while head := requests.read(LENGTH.size):
        (size,) = LENGTH.unpack(head)
        _send(replies, encoder.encode(_reply(decoder.decode(requests.read(size)))))


def _reply(request: Request) -> Reply:
    try:
        return Tiled(
            tile_image(request.data, request.layout, request.max_tiles, request.max_pixels)
        )
    except InvalidImage as error:
        return Refused(str(error.code), error.message)
    except MemoryError:
        return Refused(ImageParseError.code, "needs too much memory to decode")
    except Exception as error:  # noqa: BLE001 - outermost: one file must not end the process
        logger.warning("a picture was refused because of %s", type(error).__name__)
        return Refused(ImageParseError.code, "is damaged or ends too early")


def _send(replies: BinaryIO, frame: bytes) -> None:
    replies.write(LENGTH.pack(len(frame)))
    replies.write(frame)
    replies.flush()


def _limit_memory(limit: int) -> None:
    """Elsewhere than on Linux the system does not hold a process to it."""
    if sys.platform == "linux":
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_AS)
        if most != resource.RLIM_INFINITY:
            limit = min(limit, most)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold a client's picture


def main() -> int:
    """Decodes until the parent closes its end."""
    child_process.obey_parent_only()
    _limit_memory(int(sys.argv[1]))
    logs.configure("images")
    # PTH123: descriptors have no path.
    with open(os.dup(0), "rb") as requests, open(os.dup(1), "wb") as replies:  # noqa: PTH123
        os.dup2(2, 1)  # what is printed must not land between the frames
        serve(requests, replies)
    return 0


if __name__ == "__main__":
    sys.exit(main())
