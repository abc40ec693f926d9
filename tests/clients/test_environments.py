"""Environments are made once for what is pinned, and again where making one was interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest

from clients import catalog, environments
from clients.catalog import Client
from clients.environments import command, environment, variables

CLIENT = Client("somebody", "Somebody", "some", ("scripted",))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of CLIENT, beside the cache of its environments."""
    monkeypatch.setattr(catalog, "HERE", tmp_path)
    monkeypatch.setattr(environments, "CACHE", tmp_path / "cache")
    (tmp_path / "somebody").mkdir()
    (tmp_path / "somebody/requirements.txt").write_text("some==1.0\n")
    return tmp_path / "somebody"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The environments that were made, by an installer that installs nothing."""
    made: list[Path] = []

    def install(client: Client, directory: Path) -> None:
        assert list(directory.iterdir()) == []
        (directory / "package").touch()
        made.append(directory)

    monkeypatch.setattr(environments, "_install_python", install)
    return made


@pytest.mark.usefixtures("folder")
def test_an_environment_is_made_once(made: list[Path]) -> None:
    first, second = environment(CLIENT), environment(CLIENT)
    assert first == second
    assert made == [first]


def test_other_pins_have_another_environment(folder: Path, made: list[Path]) -> None:
    first = environment(CLIENT)
    (folder / "requirements.txt").write_text("some==1.1\n")
    assert environment(CLIENT) != first
    assert len(made) == 2
    assert CLIENT.version == "1.1"


@pytest.mark.usefixtures("folder")
def test_half_an_environment_is_made_again(made: list[Path]) -> None:
    directory = environment(CLIENT)
    (directory / "complete").unlink()
    assert environment(CLIENT) == directory
    assert made == [directory, directory]


def test_checks_of_python_run_where_they_are(folder: Path) -> None:
    assert command(CLIENT, Path("/env")) == ["/env/bin/python", str(folder / "check.py")]


def test_checks_of_node_run_beside_their_packages(folder: Path, tmp_path: Path) -> None:
    for name in ("somebody/package.json", "somebody/check.mjs"):
        (tmp_path / name).write_text(name)
    assert folder.exists()
    directory = tmp_path / "env"
    directory.mkdir()
    assert command(CLIENT, directory) == ["node", str(directory / "check.mjs")]
    assert {path.name for path in directory.iterdir()} == {
        "check.mjs",
        "checklist.mjs",
        "samples.json",
    }


def test_checks_reach_no_proxy_and_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "http_proxy", "SOMETHING_ELSE"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    found = variables()
    assert "HTTPS_PROXY" not in found
    assert "http_proxy" not in found
    assert found["SOMETHING_ELSE"] == "http://127.0.0.1:9"
    assert found["HF_HUB_OFFLINE"] == "1"
    assert found["PYTHONPATH"] == str(catalog.HERE.parent)
