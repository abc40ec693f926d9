"""What a model's `generation_config.json` says about sampling, where a request is silent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from caravan.text.json_file import read_json

_TokenId = Annotated[int, msgspec.Meta(ge=0)]


class _File(msgspec.Struct):
    do_sample: bool | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0)] | None = None
    eos_token_id: _TokenId | list[_TokenId] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationDefaults:
    """None where the file is silent too."""

    temperature: float | None = None  # 0: greedy
    top_p: float | None = None
    top_k: int | None = None  # 0: off
    eos_token_ids: tuple[int, ...] | None = None

    @classmethod
    def from_directory(cls, path: Path) -> GenerationDefaults:
        """All None if the model directory has no such file. Raises CheckpointError.

        `do_sample: false` means greedy: temperature 0, whatever `temperature` says.
        """
        file = path / "generation_config.json"
        if not file.exists():
            return cls()
        content = read_json(file, _File)
        eos = content.eos_token_id
        return cls(
            temperature=0.0 if content.do_sample is False else content.temperature,
            top_p=content.top_p,
            top_k=content.top_k,
            eos_token_ids=(eos,) if isinstance(eos, int) else None if eos is None else tuple(eos),
        )
