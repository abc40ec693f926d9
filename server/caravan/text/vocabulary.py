"""A vocabulary as the tokenizer needs it, whichever file it was read from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from caravan.errors import CheckpointError

BEGIN_OF_TEXT = "<|begin_of_text|>"
END_OF_TEXT = "<|end_of_text|>"
HEADER_START = "<|header_start|>"
HEADER_END = "<|header_end|>"
END_OF_MESSAGE = "<|eom|>"
END_OF_TURN = "<|eot|>"
IMAGE_START = "<|image_start|>"
IMAGE_END = "<|image_end|>"
TILE_X_SEPARATOR = "<|tile_x_separator|>"
TILE_Y_SEPARATOR = "<|tile_y_separator|>"
IMAGE = "<|image|>"
PATCH = "<|patch|>"

REQUIRED_SPECIALS = (
    BEGIN_OF_TEXT,
    END_OF_TEXT,
    HEADER_START,
    HEADER_END,
    END_OF_MESSAGE,
    END_OF_TURN,
)
IMAGE_SPECIALS = (IMAGE_START, IMAGE_END, TILE_X_SEPARATOR, TILE_Y_SEPARATOR, IMAGE, PATCH)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Ordinary and special tokens; together their ids are 0 to n - 1, each once.

    Raises CheckpointError if they are not, or if one of the 256 bytes or a special token that the
    chat format needs is missing.
    """

    source: Path
    ranks: dict[bytes, int]  # ordinary tokens; of two possible merges the lower id goes first
    special_ids: dict[str, int]
    pattern: str  # regular expression of the pieces of text that merges never cross

    def __post_init__(self) -> None:
        ids = {*self.ranks.values(), *self.special_ids.values()}
        size = len(self.ranks) + len(self.special_ids)
        missing = next((i for i in range(size) if i not in ids), None)
        if missing is not None:
            raise CheckpointError(
                f"{self.source}: its {size} tokens do not have the ids 0 to {size - 1}, each once: "
                f"no token has the id {missing}"
            )
        for byte in range(256):
            if bytes([byte]) not in self.ranks:
                raise CheckpointError(
                    f"{self.source}: no token for the byte 0x{byte:02x}, so some text has no tokens"
                )
        for name in REQUIRED_SPECIALS:
            if name not in self.special_ids:
                raise CheckpointError(
                    f"{self.source}: no special token {name}, which Llama 4's chat format needs"
                )
