"""What runs inside clients' environments: checks by feature, and what is printed about them."""

from __future__ import annotations

import json

import pytest

from clients import checklist
from clients.checklist import failure, feature, run, same


@pytest.fixture(autouse=True)
def _own_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checklist, "_checks", {})
    monkeypatch.setattr("sys.argv", ["check.py"])


def printed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    run()
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_checks_are_run_in_order_whatever_fails(capsys: pytest.CaptureFixture[str]) -> None:
    feature("stop")(lambda: None)
    feature("chat")(lambda: same(1, 2))
    feature("seed")(lambda: "only odd ones")
    stop, chat, seed = printed(capsys)
    assert stop == {"feature": "stop", "ok": True, "note": ""}
    assert seed == {"feature": "seed", "ok": True, "note": "only odd ones"}
    assert not chat["ok"]
    assert "AssertionError: 1 is not 2" in str(chat["note"])


def test_some_checks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    feature("stop")(lambda: None)
    feature("chat")(lambda: None)
    monkeypatch.setattr("sys.argv", ["check.py", "chat"])
    assert [line["feature"] for line in printed(capsys)] == ["chat"]


def test_notes_are_short(capsys: pytest.CaptureFixture[str]) -> None:
    feature("stop")(lambda: same("x" * 10_000, ""))
    (line,) = printed(capsys)
    assert len(str(line["note"])) == 400


def test_a_feature_has_one_check() -> None:
    feature("stop")(lambda: None)
    with pytest.raises(AssertionError, match="stop"):
        feature("stop")(lambda: None)


def test_failures() -> None:
    assert failure(ZeroDivisionError, lambda: 1 // 0).args
    with pytest.raises(AssertionError, match="no KeyError, but 1"):
        failure(KeyError, lambda: 1)
    with pytest.raises(ZeroDivisionError):
        failure(KeyError, lambda: 1 // 0)
