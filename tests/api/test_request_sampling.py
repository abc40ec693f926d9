"""Request fields become `messages.Sampling`."""

from __future__ import annotations

import httpx
import pytest

from api.conftest import MODEL
from api.fake_engine import FakeEngine
from caravan.api.app import create_app
from caravan.api.images import ImageLoader
from caravan.config import ApiConfig
from caravan.messages import Sampling
from caravan.text.defaults import GenerationDefaults
from caravan.text.tokenizer import Tokenizer

STOPS = (257, 260, 261)  # <|end_of_text|>, <|eom|>, <|eot|>


async def sampling_of(http: httpx.AsyncClient, engine: FakeEngine, **fields: object) -> Sampling:
    response = await http.post("/v1/completions", json={"model": MODEL, "prompt": "Hi", **fields})
    assert response.status_code == 200, response.text
    return engine.sampling


async def test_every_field_arrives(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    assert await sampling_of(
        http,
        engine,
        max_tokens=9,
        min_tokens=2,
        temperature=0.5,
        top_p=0.25,
        top_k=40,
        min_p=0.125,
        seed=-3,
        repetition_penalty=1.5,
        frequency_penalty=-1,
        presence_penalty=2,
        logit_bias={"5": -100, "7": 0.5},
        stop_token_ids=[9, 261],
        logprobs=3,
    ) == Sampling(
        max_tokens=9,
        min_tokens=2,
        temperature=0.5,
        top_p=0.25,
        top_k=40,
        min_p=0.125,
        seed=-3,
        repetition_penalty=1.5,
        frequency_penalty=-1.0,
        presence_penalty=2.0,
        logit_bias=((5, -100.0), (7, 0.5)),
        stop_token_ids=(9, *STOPS),
        logprobs=3,
    )


async def test_what_is_not_said_is_off(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    sampling = await sampling_of(http, engine, seed=0)
    assert sampling == Sampling(max_tokens=16, stop_token_ids=STOPS)


@pytest.mark.parametrize(("top_k", "meant"), [(-1, 0), (0, 0), (1, 1), (10**30, 270)])
async def test_top_k(http: httpx.AsyncClient, engine: FakeEngine, top_k: int, meant: int) -> None:
    assert (await sampling_of(http, engine, top_k=top_k)).top_k == meant


async def test_ignore_eos_keeps_the_clients_own(
    http: httpx.AsyncClient, engine: FakeEngine
) -> None:
    sampling = await sampling_of(http, engine, ignore_eos=True, stop_token_ids=[9])
    assert sampling.stop_token_ids == (9,)


async def test_seeds_go_up_and_wrap(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    await sampling_of(http, engine, n=3, seed=2**63 - 2)
    seeds = [each.sampling.seed for each in engine.submits[0]]
    assert seeds == [2**63 - 2, 2**63 - 1, -(2**63)]


async def test_without_a_seed_every_choice_has_its_own(
    http: httpx.AsyncClient, engine: FakeEngine
) -> None:
    await sampling_of(http, engine, n=64)
    await sampling_of(http, engine, n=64)
    seeds = [each.sampling.seed for submit in engine.submits for each in submit]
    assert len(set(seeds)) == 128
    assert all(-(2**63) <= seed < 2**63 for seed in seeds)
    assert min(seeds) < 0 < max(seeds)


async def test_the_models_own_defaults(
    engine: FakeEngine, tokenizer: Tokenizer, images: ImageLoader
) -> None:
    defaults = GenerationDefaults(temperature=0.6, top_p=0.9, top_k=50, eos_token_ids=(262,))
    app = create_app(engine, tokenizer, defaults, ApiConfig(), model_name=MODEL, images=images)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as http:
        sampling = await sampling_of(http, engine)
        assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.6, 0.9, 50)
        assert sampling.stop_token_ids == (*STOPS, 262)
        sampling = await sampling_of(http, engine, temperature=0, top_p=1, top_k=0)
        assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0, 1, 0)
