"""Figures of the GPU benchmark: a row for each implementation of each case, as table, CSV, JSON."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median

from gpu_case import Case, Hardware
from gpu_timing import Outcome, Timing

OURS = "ours"


@dataclass(frozen=True, slots=True)
class Row:
    """One implementation of one case; without figures if `note` says why."""

    case: str
    implementation: str  # "ours", or the peer's name
    us: float | None = None  # median of the repeats
    p95_us: float | None = None
    floor_us: float | None = None
    share_of_floor: float | None = None  # 1: as fast as the card can move or compute
    bound: str = ""  # what sets the floor: "memory" or "compute"
    tb_per_s: float | None = None
    tflop_per_s: float | None = None
    ratio_to_ours: float | None = None  # median over the repeats; above 1: ours is faster
    repeats: int = 0
    calls_per_repeat: int = 0
    method: str = ""
    difference: float | None = None  # of the peer's result from ours, relative
    note: str = ""


def rows(
    name: str,
    case: Case,
    hardware: Hardware,
    outcomes: Mapping[str, Outcome],
    differences: Mapping[str, float],
) -> list[Row]:
    """Ours first, then the peers."""
    result = []
    ours = outcomes[OURS]
    for implementation, outcome in outcomes.items():
        difference = differences.get(implementation)
        if isinstance(outcome, str):
            result.append(Row(name, implementation, difference=difference, note=outcome))
            continue
        ratio = None
        if isinstance(ours, Timing) and implementation != OURS:
            pairs = zip(outcome.seconds, ours.seconds, strict=True)
            ratio = median(theirs / own for theirs, own in pairs)
        seconds, floor_s = outcome.median_s, case.floor_s(hardware)
        result.append(
            Row(
                name,
                implementation,
                us=1e6 * seconds,
                p95_us=1e6 * outcome.p95_s,
                floor_us=1e6 * floor_s,
                share_of_floor=floor_s / seconds,
                bound="compute" if case.compute_bound(hardware) else "memory",
                tb_per_s=1e-12 * case.bytes / seconds,
                tflop_per_s=1e-12 * case.flops / seconds,
                ratio_to_ours=ratio,
                repeats=len(outcome.seconds),
                calls_per_repeat=outcome.calls,
                method=outcome.method,
                difference=difference,
            )
        )
    return result


HEADING = f"{'case':<52} {'us':>9} {'p95':>9} {'achieved':>14} {'floor':>6}  peers' time / ours"


def line(case_rows: list[Row]) -> str:
    """The table's line of one case."""
    ours, *peers = case_rows
    if ours.us is None or ours.p95_us is None or ours.share_of_floor is None:
        return f"{ours.case:<52} {ours.note}"
    if ours.bound == "compute":
        achieved = f"{ours.tflop_per_s:.0f} TFLOP/s"
    else:
        achieved = f"{ours.tb_per_s:.2f} TB/s"
    ratios = "  ".join(f"{peer.implementation} {_ratio(peer)}" for peer in peers)
    return (
        f"{ours.case:<52} {ours.us:9.2f} {ours.p95_us:9.2f} {achieved:>14} "
        f"{100 * ours.share_of_floor:5.0f}%  {ratios}"
    ).rstrip()


def _ratio(peer: Row) -> str:
    return f"({peer.note})" if peer.ratio_to_ours is None else f"{peer.ratio_to_ours:.2f}"


def write_csv(path: Path | None, table: Iterable[Row]) -> None:
    """Writes one line per row; None: nothing is written."""
    if path is None:
        return
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in table)
