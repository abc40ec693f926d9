"""Rank 0's orders to the other ranks: bytes over the CPU group, one broadcast each.

A frame is FRAME_BYTES long: the order's length, and as much of it as there is room for. What is
longer (a long prompt's tokens, the pixels of tiles, masks) needs a second broadcast, of the rest.
"""

from __future__ import annotations

import msgspec
import torch

from caravan.messages import TokenMasks, ToRank
from caravan.worker.group import Group

FRAME_BYTES = 1 << 14  # a step of 512 single tokens needs some 12 KB
_LENGTH_BYTES = 8

_encoder = msgspec.msgpack.Encoder()
_orders: msgspec.msgpack.Decoder[ToRank] = msgspec.msgpack.Decoder(ToRank)
_masks = msgspec.msgpack.Decoder(TokenMasks)


class Channel:
    """One rank's end. Its methods raise PeerLost."""

    def __init__(self, group: Group) -> None:
        self.broadcast_bytes = 0  # since the start
        self._group = group
        self._frame = torch.zeros(FRAME_BYTES, dtype=torch.uint8)

    def send(self, message: ToRank | TokenMasks) -> None:
        """Tells all other ranks."""
        body = torch.frombuffer(bytearray(_encoder.encode(message)), dtype=torch.uint8)
        self._frame[:_LENGTH_BYTES].view(torch.int64)[0] = len(body)
        first = body[: FRAME_BYTES - _LENGTH_BYTES]
        self._frame[_LENGTH_BYTES : _LENGTH_BYTES + len(first)] = first
        self._broadcast(self._frame)
        if len(body) > len(first):
            self._broadcast(body[len(first) :])

    def receive(self) -> ToRank:
        """Waits for the next order."""
        return _orders.decode(self._receive())

    def receive_masks(self) -> TokenMasks:
        """Waits for the masks that an order announced."""
        return _masks.decode(self._receive())

    def _receive(self) -> bytes:
        self._broadcast(self._frame)
        length = int(self._frame[:_LENGTH_BYTES].view(torch.int64)[0])
        first = self._frame[_LENGTH_BYTES : _LENGTH_BYTES + length]
        if length <= len(first):
            return first.numpy().tobytes()
        body = torch.empty(length, dtype=torch.uint8)
        body[: len(first)] = first
        self._broadcast(body[len(first) :])
        return body.numpy().tobytes()

    def _broadcast(self, frame: torch.Tensor) -> None:
        self._group.broadcast(frame)
        self.broadcast_bytes += len(frame)
