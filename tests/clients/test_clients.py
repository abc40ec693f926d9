"""Every client's checks, in its own environment; slow, so only with --run-clients."""

from __future__ import annotations

import shutil

import pytest

from clients.catalog import Client, read_clients, read_limits
from clients.checking import check
from clients.results import surprises


@pytest.mark.clients
@pytest.mark.parametrize("client", read_clients(), ids=lambda client: client.name)
def test_client(client: Client) -> None:
    if client.uses_node and shutil.which("node") is None:
        pytest.skip("needs node")
    assert surprises(check(client), read_limits()) == []
