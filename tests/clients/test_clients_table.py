"""What is written about clients: the catalog, the known limits, and the table made of them."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest

from clients.catalog import FEATURES, HERE, Client, read_clients, read_limits
from clients.results import Outcome, read_outcomes, surprises
from clients.table import document, write_table

ROOT = Path(__file__).parents[2]
TODAY = datetime.date(2026, 11, 24)
CLIENTS = read_clients()
ONE, TWO = CLIENTS[:2]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def line(feature: str, *, ok: bool = True, note: str = "") -> str:
    return json.dumps({"feature": feature, "ok": ok, "note": note})


def test_every_folder_is_a_client_with_its_pins_and_checks() -> None:
    folders = {path.parent.name for path in HERE.glob("*/check.*")}
    assert {client.name for client in CLIENTS} == folders
    for client in CLIENTS:
        assert all(path.exists() for path in client.pins), client
        assert client.version, client


def test_pins_are_exact() -> None:
    for client in CLIENTS:
        if client.uses_node:
            pins = json.loads(client.pins[0].read_text())["dependencies"].values()
            assert all(pin[0].isdigit() for pin in pins), client
        else:
            pins = client.pins[0].read_text().splitlines()
            assert all(pin.count("==") == 1 for pin in pins), client


def test_known_limits_are_of_clients_and_features_and_say_why() -> None:
    names = {client.name for client in CLIENTS}
    for (client, feature), reason in read_limits().items():
        assert client in names
        assert feature in FEATURES
        assert len(reason) > 20, reason


def test_the_document_is_of_these_clients_and_limits() -> None:
    lines = (ROOT / "docs/clients.md").read_text(encoding="utf-8").splitlines()
    rows = [cells(line) for line in lines if line.startswith("| ")]
    assert rows[0] == ["", *(client.title for client in CLIENTS)]
    assert rows[1] == ["version", *(client.version for client in CLIENTS)]
    assert [row[0] for row in rows[2:]] == [*FEATURES.values()]
    assert {len(row) for row in rows} == {len(CLIENTS) + 1}
    verdicts = [cell for row in rows[2:] for cell in row[1:] if cell]
    assert {verdict.split(" (")[0] for verdict in verdicts} <= {"yes", "no"}
    numbers = [int(v.split("(")[1].rstrip(")")) for v in verdicts if "(" in v]
    notes = [line for line in lines if line.partition(".")[0].isdigit()]
    assert numbers == list(range(1, len(notes) + 1))
    found = {
        (client.name, feature)
        for row, feature in zip(rows[2:], FEATURES, strict=True)
        for cell, client in zip(row[1:], CLIENTS, strict=True)
        if cell.startswith("no")
    }
    assert found == read_limits().keys()
    assert all(any(reason in note for note in notes) for reason in read_limits().values())


def test_no_client_is_without_something_that_works() -> None:
    lines = (ROOT / "docs/clients.md").read_text(encoding="utf-8").splitlines()
    rows = [cells(line) for line in lines if line.startswith("| ")][2:]
    for column in range(1, len(CLIENTS) + 1):
        assert any(row[column].startswith("yes") for row in rows), column


def test_a_document() -> None:
    outcomes = [
        Outcome(TWO.name, "stream", False, "line 7: whatever"),
        Outcome(ONE.name, "chat", True, ""),
        Outcome(TWO.name, "chat", True, "only on Mondays"),
    ]
    text = document([ONE, TWO], outcomes, {(TWO.name, "stream"): "it has no ears"}, TODAY)
    assert "on 2026-11-24:" in text
    assert f"| version | {ONE.version} | {TWO.version} |" in text
    assert "| chat | yes | yes (1) |" in text
    assert "| streams, with their usage |  | no (2) |" in text
    assert f"| {FEATURES['seed']} |  |  |" in text
    assert text.endswith(
        f"1. {TWO.title}, chat: only on Mondays.\n"
        f"2. {TWO.title}, streams, with their usage: it has no ears.\n"
    )
    assert "whatever" not in text


def test_writing_a_document(tmp_path: Path) -> None:
    write_table(tmp_path / "clients.md", [Outcome(ONE.name, "chat", True, "")], {}, TODAY)
    text = (tmp_path / "clients.md").read_text(encoding="utf-8")
    assert text == document(CLIENTS, [Outcome(ONE.name, "chat", True, "")], {}, TODAY)


def test_outcomes_are_read_between_other_lines() -> None:
    lines = ["hello", line("chat"), "{}", line("stop", ok=False, note="line 3")]
    assert read_outcomes(ONE, lines) == [
        Outcome(ONE.name, "chat", True, ""),
        Outcome(ONE.name, "stop", False, "line 3"),
    ]


@pytest.mark.parametrize("lines", [[], ["hello"], [line("chat")] * 2, [line("telepathy")]])
def test_a_script_that_checks_nothing_or_something_strange(lines: list[str]) -> None:
    with pytest.raises(ValueError, match=ONE.name):
        read_outcomes(ONE, lines)


def outcome(feature: str, *, ok: bool, client: Client = ONE) -> Outcome:
    return Outcome(client.name, feature, ok, "")


def test_what_is_expected_is_no_surprise() -> None:
    limits = {(ONE.name, "chat"): "why", (TWO.name, "seed"): "of a client that was not run"}
    assert surprises([outcome("chat", ok=False), outcome("stop", ok=True)], limits) == []


@pytest.mark.parametrize(
    ("ok", "limits", "words"),
    [
        (False, {}, "chat fails"),
        (False, {(TWO.name, "chat"): "why"}, "chat fails"),
        (True, {(ONE.name, "chat"): "why"}, "chat works"),
        (True, {(ONE.name, "stop"): "why"}, "stop is a known limit, and has no check"),
    ],
)
def test_surprises(ok: bool, limits: dict[tuple[str, str], str], words: str) -> None:
    (found,) = surprises([outcome("chat", ok=ok)], limits)
    assert ONE.name in found
    assert words in found


def test_limits_without_a_check_count_only_where_all_checks_were_run() -> None:
    limits = {(ONE.name, "stop"): "why"}
    assert surprises([outcome("chat", ok=True)], limits, whole=False) == []
