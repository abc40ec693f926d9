"""docs/clients.md: which client can do what with this server, as the checks found it."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from clients.catalog import FEATURES, Client, read_clients
from clients.results import Outcome

HEAD = """\
# Clients

What works with clients that people really use. Each was run against this server, on {today}:

    python tests/clients/run.py --table docs/clients.md

This page is what the command wrote; the checks are in [tests/clients](../tests/clients). They talk
to the real API, behind which an engine speaks from a script, so that every answer is known
beforehand. lm-eval talks to `caravan serve` with its demo model. An empty cell: the client has no
such feature, or none of its own.
"""

Notes = dict[tuple[str, str], str]


def write_table(
    path: Path,
    outcomes: Sequence[Outcome],
    limits: Mapping[tuple[str, str], str],
    today: datetime.date,
) -> None:
    """Writes the document. `limits` says why a check fails."""
    path.write_text(document(read_clients(), outcomes, limits, today), encoding="utf-8")


def document(
    clients: Sequence[Client],
    outcomes: Sequence[Outcome],
    limits: Mapping[tuple[str, str], str],
    today: datetime.date,
) -> str:
    """The whole text: a table of features and clients, and notes that its cells refer to."""
    notes = {
        (o.client, o.feature): limits.get((o.client, o.feature), o.note)
        for o in sorted(outcomes, key=_place(clients))
        if o.note or not o.ok
    }
    lines = [
        HEAD.format(today=today),
        _row(["", *(client.title for client in clients)]),
        "|---" * (len(clients) + 1) + "|",
        _row(["version", *(client.version for client in clients)]),
        *_rows(clients, outcomes, list(notes)),
    ]
    if notes:
        lines += ["", *_note_lines(clients, notes)]
    return "\n".join(lines) + "\n"


def _rows(
    clients: Sequence[Client], outcomes: Sequence[Outcome], noted: Sequence[tuple[str, str]]
) -> Iterator[str]:
    found = {(outcome.client, outcome.feature): outcome for outcome in outcomes}
    for feature, title in FEATURES.items():
        cells = []
        for client in clients:
            key = (client.name, feature)
            verdict = "" if key not in found else "yes" if found[key].ok else "no"
            cells.append(f"{verdict} ({noted.index(key) + 1})" if key in noted else verdict)
        yield _row([title, *cells])


def _note_lines(clients: Sequence[Client], notes: Notes) -> Iterator[str]:
    titles = {client.name: client.title for client in clients}
    for number, ((client, feature), note) in enumerate(notes.items(), 1):
        yield f"{number}. {titles[client]}, {FEATURES[feature]}: {note}."


def _place(clients: Iterable[Client]) -> Callable[[Outcome], tuple[int, int]]:
    """A sorting key: by feature, then by client, as the table reads."""
    names = [client.name for client in clients]
    features = list(FEATURES)
    return lambda outcome: (features.index(outcome.feature), names.index(outcome.client))


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
