"""Models, probes, version."""

from __future__ import annotations

import httpx
import openai
import pytest
from fastapi import FastAPI

import caravan
from api.conftest import MODEL
from api.fake_engine import FakeEngine
from caravan.config import ApiConfig
from caravan.messages import Progress


def test_models(client: openai.OpenAI) -> None:
    [listed] = client.models.list().data
    retrieved = client.models.retrieve(MODEL)
    assert retrieved == listed
    assert listed.id == MODEL
    assert listed.object == "model"
    assert listed.owned_by == "caravan"
    assert listed.to_dict()["max_model_len"] == 200


@pytest.mark.parametrize("path", [MODEL, MODEL.replace("/", "%2F")])
async def test_a_model_id_may_have_slashes(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(f"/v1/models/{path}")).json()["id"] == MODEL


async def test_another_model(http: httpx.AsyncClient) -> None:
    response = await http.get("/v1/models/gpt-4")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("path", ["/v1/models", f"/v1/models/{MODEL}", "/ready"])
async def test_while_it_loads(http: httpx.AsyncClient, engine: FakeEngine, path: str) -> None:
    engine.ready = None
    response = await http.get(path)
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "loading"
    assert response.headers["retry-after"] == "5"
    assert (await http.get("/health")).status_code == 200
    assert (await http.get("/metrics")).status_code == 200


async def test_ready_tells_the_progress(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    loaded, engine.ready = engine.ready, None
    assert (await http.get("/ready")).json()["progress"] is None
    engine.loading = Progress("weights", 3, 12, "tensors")
    body = (await http.get("/ready")).json()
    assert body["progress"] == {"phase": "weights", "done": 3, "total": 12, "unit": "tensors"}
    assert "weights: 3 of 12 tensors" in body["error"]["message"]
    engine.ready = loaded
    assert (await http.get("/ready")).json() == {"status": "ready"}


async def test_draining_is_alive_but_not_ready(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.draining = True
    response = await http.get("/ready")
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "draining"
    assert (await http.get("/health")).status_code == 200


@pytest.mark.parametrize("config", [ApiConfig(engine_timeout=10)])
async def test_health_is_the_heartbeats_age(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.silence_s = 10.0
    assert (await http.get("/health")).status_code == 200
    engine.silence_s = 10.5
    response = await http.get("/health")
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "engine_dead"
    assert "the limit is 10" in response.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/health", "/ready"])
async def test_a_dead_engine(http: httpx.AsyncClient, engine: FakeEngine, path: str) -> None:
    engine.alive = False
    response = await http.get(path)
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "engine_dead"


@pytest.mark.parametrize("path", ["/health", "/ready"])
async def test_load_balancers_probe_with_head(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.head(path)).status_code == 200


async def test_version(http: httpx.AsyncClient) -> None:
    assert (await http.get("/version")).json() == {"version": caravan.__version__}


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_no_pages_that_load_scripts_from_elsewhere(
    http: httpx.AsyncClient, path: str
) -> None:
    assert (await http.get(path)).status_code == 404


async def test_websockets_are_refused(app: FastAPI) -> None:
    sent = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: object) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/v1/chat/completions", "headers": []}
    await app(scope, receive, send)
    assert sent == [{"type": "websocket.close"}]
