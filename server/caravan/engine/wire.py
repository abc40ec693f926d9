"""The socket between the API process and the engine process, and what crosses it.

ZeroMQ PAIR over `ipc://`, one msgpack frame per message; the file lies in a private directory. The
engine binds and the API process connects, so that what the API sends is queued from the first
moment on, before the engine runs. `Start` is the first message; `messages.py` has all others.
"""

from __future__ import annotations

import msgspec
import zmq

from caravan.config import EngineConfig
from caravan.messages import FromEngine, ToEngine

# A message that waits for its peer when the socket is closed is given up after so long.
LINGER_MS = 2000


class Start(msgspec.Struct, frozen=True, tag="start"):
    """api -> engine: the configuration, and the directory the model is loaded from."""

    config: EngineConfig
    directory: str


Message = Start | ToEngine | FromEngine

_encoder = msgspec.msgpack.Encoder()
_start_decoder = msgspec.msgpack.Decoder(Start)
_to_engine_decoder: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)
_from_engine_decoder: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)


def encode(message: Message) -> bytes:
    """One frame."""
    return _encoder.encode(message)


def decode_start(frame: bytes) -> Start:
    """The first message. Raises msgspec.DecodeError, as do the other two: a bug of ours."""
    return _start_decoder.decode(frame)


def decode_to_engine(frame: bytes) -> ToEngine:
    """A message of the API process."""
    return _to_engine_decoder.decode(frame)


def decode_from_engine(frame: bytes) -> FromEngine:
    """A message of the engine."""
    return _from_engine_decoder.decode(frame)


def pair(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    """A PAIR socket without high-water marks.

    At its mark a PAIR socket blocks, and neither side may ever wait for the other. What can pile up
    is bounded elsewhere: requests by the client's queue bound, tokens by their `max_tokens`.
    """
    socket: zmq.Socket[bytes] = context.socket(zmq.PAIR)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.LINGER, LINGER_MS)
    return socket
