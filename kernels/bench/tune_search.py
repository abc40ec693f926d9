"""Which launch parameters to try, from those in use. Times nothing itself."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

Launch = dict[str, Any]
Evaluate = Callable[[Launch], float | None]
"""Time over that of the launch in use; None: it does not compile, spills, or computes wrongly."""

# What a parameter may be. Others are powers of two between the bounds of BLOCK.
VALUES: Mapping[str, tuple[int, ...]] = {
    "num_warps": (1, 2, 4, 8, 16),
    "num_stages": (1, 2, 3, 4, 5, 6, 7),
    "programs_per_sm": (1, 2, 3, 4, 6, 8),
    "GROUP_M": (1, 4, 8, 16),
}
BLOCK = tuple(1 << i for i in range(13))
NOISE = 0.01  # a launch that is not faster by more is not faster


def values(name: str, present: object) -> tuple[object, ...]:
    """What may stand for `present`, ascending; a name (which kernel) has no order and stays."""
    if isinstance(present, bool):
        return (False, True)
    if isinstance(present, int):
        return VALUES.get(name, BLOCK)
    return (present,)


def neighbours(launch: Launch) -> Iterator[Launch]:
    """Launches that differ in one parameter, by one step of its values."""
    for name, present in launch.items():
        for value in _near(name, present):
            if value != present:
                yield {**launch, name: value}


def _near(name: str, present: object) -> tuple[object, ...]:
    """The value, and those beside it."""
    possible = values(name, present)
    if present not in possible:
        return (present,)
    place = possible.index(present)
    return possible[max(0, place - 1) : place + 2]


def around(launch: Launch) -> Iterator[Launch]:
    """All launches at most one step away in every parameter."""
    for chosen in itertools.product(*(_near(*parameter) for parameter in launch.items())):
        yield dict(zip(launch, chosen, strict=True))


def search(
    present: Launch, others: Iterable[Launch], evaluate: Evaluate, *, exhaustive: bool = False
) -> tuple[Launch, float]:
    """The fastest launch found, and its time over the present one's.

    Tries `others`, which are in use for other sizes, and goes on from the best in single steps
    until none is faster. `exhaustive`: tries all combinations of single steps first.
    """
    tried: dict[str, float] = {_key(present): 1.0}

    def time(launch: Launch) -> float:
        key = _key(launch)
        if key not in tried:
            ratio = evaluate(launch)
            tried[key] = float("inf") if ratio is None else ratio
        return tried[key]

    best = present
    candidates = [*others, *(around(present) if exhaustive else ())]
    while True:
        fastest = min(candidates, key=time, default=best)
        if time(fastest) < time(best) * (1 - NOISE):
            best = fastest
        candidates = [launch for launch in neighbours(best) if _key(launch) not in tried]
        if not candidates:
            return best, time(best)


def _key(launch: Launch) -> str:
    return repr(sorted(launch.items()))
