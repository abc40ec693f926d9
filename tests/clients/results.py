"""What checks found, and which of it nobody expected."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from clients.catalog import FEATURES, Client


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one check."""

    client: str
    feature: str
    ok: bool
    note: str  # where it fails: how; else what is worth knowing


def read_outcomes(client: Client, lines: Iterable[str]) -> list[Outcome]:
    """What a client's script printed; libraries that print something of their own are passed over.

    Raises ValueError if there is nothing, a feature that the catalog lacks, or one twice.
    """
    outcomes = []
    for line in lines:
        if line.startswith('{"feature":'):
            found = json.loads(line)
            outcomes.append(Outcome(client.name, found["feature"], found["ok"], found["note"]))
    features = [outcome.feature for outcome in outcomes]
    if not features or len({*features}) < len(features) or not {*features} <= FEATURES.keys():
        raise ValueError(f"{client.name}: its checks are {features}")
    return outcomes


def surprises(
    outcomes: Sequence[Outcome], limits: Mapping[tuple[str, str], str], *, whole: bool = True
) -> list[str]:
    """One line for each outcome that is not as `limits` says, and each limit without a check.

    `whole`: all checks of these clients were run.
    """
    lines = []
    for outcome in outcomes:
        known = (outcome.client, outcome.feature) in limits
        if not outcome.ok and not known:
            lines.append(f"{outcome.client}: {outcome.feature} fails: {outcome.note}")
        if outcome.ok and known:
            lines.append(f"{outcome.client}: {outcome.feature} works, and is a known limit")
    checked = {(outcome.client, outcome.feature) for outcome in outcomes}
    clients = {client for client, _ in checked}
    for client, feature in limits:
        if whole and client in clients and (client, feature) not in checked:
            lines.append(f"{client}: {feature} is a known limit, and has no check")
    return lines
