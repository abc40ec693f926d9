"""The slow tier: `pytest tests/clients --run-clients`."""

from __future__ import annotations

import pytest

# Scripts of clients run in environments of their own; here their packages are missing.
collect_ignore_glob = ["*/*.py"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--run-clients"):
        return
    for item in items:
        if item.get_closest_marker("clients"):
            item.add_marker(pytest.mark.skip(reason="needs --run-clients"))
