"""Bounds of numbers, around a mistake of llguidance's.

Between an exclusive bound that is an integer and another bound less than 1 further from zero it
allows the integer all the same: 8 for more than 8 and at most 8.5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal

BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
_OPPOSITE = {"minimum": "maximum", "maximum": "minimum"}


def is_misread(bounds: Mapping[str, float]) -> bool:
    """Whether llguidance would allow one of the bounds that are excluded."""
    return any(_misread_end(bounds, end) for end in _OPPOSITE)


def without_misreading(bounds: Mapping[str, float]) -> dict[str, float]:
    """The same bounds; one that would be misread is moved by a millionth of their distance."""
    moved = dict(bounds)
    for end, opposite in _OPPOSITE.items():
        if _misread_end(bounds, end):
            bound = Decimal(moved.pop(_exclusive(end)))
            distance = Decimal(repr(_tighter(bounds, opposite))) - bound
            step = Decimal(1).scaleb(distance.adjusted() - 6).copy_sign(distance)
            moved[end] = float(bound + step)
    return moved


def combined_bounds(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    """The bounds of a number for which both hold."""
    out = {**a, **b}
    for name in a.keys() & b.keys():
        out[name] = max(a[name], b[name]) if name.endswith("inimum") else min(a[name], b[name])
    return out


def _exclusive(end: str) -> str:
    return "exclusive" + end.capitalize()


def _tighter(bounds: Mapping[str, float], end: str) -> float | None:
    """The bound at an end: of an exclusive and another one the one that counts."""
    given = [bounds[name] for name in (end, _exclusive(end)) if name in bounds]
    return (max if end == "minimum" else min)(given, default=None)


def _misread_end(bounds: Mapping[str, float], end: str) -> bool:
    bound = bounds.get(_exclusive(end))
    other = _tighter(bounds, _OPPOSITE[end])
    if bound is None or other is None or bound != _tighter(bounds, end) or bound % 1:
        return False
    sign = 1 if end == "minimum" else -1  # mirrored, a maximum is a minimum
    bound, other = sign * bound, sign * other
    return bound >= 0 and other > bound and math.floor(other) == bound
