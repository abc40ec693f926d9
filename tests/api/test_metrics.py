"""What Prometheus reads."""

from __future__ import annotations

import httpx
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

import caravan
from api.conftest import MODEL
from api.fake_engine import FakeEngine, say
from caravan.errors import EngineDead
from caravan.messages import Stats

BODY = {"model": MODEL, "prompt": "Hi"}


async def samples(http: httpx.AsyncClient) -> dict[str, float]:
    """Value by name and labels, as in the page, histogram buckets left out."""
    response = await http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        sample.name + "".join(f",{k}={v}" for k, v in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
        if not sample.name.endswith(("_bucket", "_created"))
    }


async def test_the_engines_numbers(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.stats = Stats(
        running=1, waiting=2, pages_free=3, pages_cached=4, pages_owned=5, steps=6, preemptions=7,
        computed_tokens=8, encoded_tiles=9, reused_tiles=10,
    )  # fmt: skip
    found = await samples(http)
    expected = {
        "caravan_requests_running": 1,
        "caravan_requests_waiting": 2,
        "caravan_kv_pages,state=free": 3,
        "caravan_kv_pages,state=cached": 4,
        "caravan_kv_pages,state=owned": 5,
        "caravan_steps_total": 6,
        "caravan_preemptions_total": 7,
        "caravan_computed_tokens_total": 8,
        "caravan_encoded_tiles_total": 9,
        "caravan_reused_tiles_total": 10,
        f"caravan_build_info,version={caravan.__version__}": 1,
    }
    assert expected.items() <= found.items()


async def test_a_served_request(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = lambda index, sampling: (
        say("abc", cached=2) if index == 0 else say("defgh", by=2, finish="length", cached=3)
    )
    for stream in (False, True):
        await http.post("/v1/completions", json={**BODY, "n": 2, "stream": stream})
    found = await samples(http)
    expected = {
        "caravan_prompt_tokens_total": 4 * 3,
        "caravan_prompt_cached_tokens_total": 2 * (2 + 3),
        "caravan_generation_tokens_total": 2 * (4 + 5),
        "caravan_requests_finished_total,reason=stop": 2,
        "caravan_requests_finished_total,reason=length": 2,
        "caravan_time_to_first_token_seconds_count": 4,
        "caravan_inter_token_latency_seconds_count": 2 * (3 + 4),
        "caravan_time_per_output_token_seconds_count": 4,
        "caravan_request_seconds_count": 4,
        "caravan_request_prompt_tokens_sum": 4 * 3,
        "caravan_request_generation_tokens_sum": 2 * (4 + 5),
        "caravan_http_requests_total,method=POST,route=/v1/completions,status=200": 2,
    }
    assert expected.items() <= found.items()
    assert not any("rejected" in name for name in found)


async def test_times_are_seconds(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = lambda index, sampling: [0.05, *say("ab")[:1], 0.1, *say("b")]
    await http.post("/v1/completions", json=BODY)
    found = await samples(http)
    assert 0.05 <= found["caravan_time_to_first_token_seconds_sum"] < 0.15
    assert 0.1 <= found["caravan_inter_token_latency_seconds_sum"] < 0.2
    assert 0.05 <= found["caravan_time_per_output_token_seconds_sum"] < 0.1
    assert 0.15 <= found["caravan_request_seconds_sum"] < 0.3


async def test_a_failed_request(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = lambda index, sampling: [*say("a")[:1], EngineDead("gone")]
    await http.post("/v1/completions", json=BODY)
    found = await samples(http)
    assert found["caravan_requests_finished_total,reason=error"] == 1
    assert found["caravan_requests_rejected_total,code=engine_dead"] == 1
    assert found["caravan_generation_tokens_total"] <= 1
    assert found["caravan_request_seconds_count"] == 0


async def test_a_stop_string_counts_the_tokens_it_took(
    http: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.script = lambda index, sampling: say("abcdef", by=6)
    await http.post("/v1/completions", json={**BODY, "stop": "c"})
    found = await samples(http)
    assert found["caravan_generation_tokens_total"] == 3
    assert found["caravan_requests_finished_total,reason=stop"] == 1


async def test_labels_do_not_grow_with_what_clients_send(http: httpx.AsyncClient) -> None:
    for name in ("a", "b"):
        await http.get(f"/{name}")
        await http.get(f"/v1/models/{name}")
        await http.request(f"FOO{name}", "/version")
        await http.post("/v1/completions", json={**BODY, name: 1})
    found = await samples(http)
    http_names = {name for name in found if name.startswith("caravan_http_requests_total")}
    prefix = "caravan_http_requests_total"
    assert http_names == {
        f"{prefix},method=GET,route=unmatched,status=404",
        f"{prefix},method=GET,route=/v1/models/{{model_id:path}},status=404",
        f"{prefix},method=other,route=/version,status=405",
        f"{prefix},method=POST,route=/v1/completions,status=400",
    }


async def test_two_servers_do_not_share_numbers(http: httpx.AsyncClient) -> None:
    """The registry is the app's own; the process-wide one stays as it is."""
    assert not any(m.name.startswith("caravan") for m in REGISTRY.collect())
