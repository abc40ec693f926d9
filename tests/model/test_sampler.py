"""Requests keep to their own parameters, step after step, whatever else is in the batch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from caravan.messages import Admission, Sampled, Sampling
from caravan.worker.sampler import Sampler as SeatedSampler
from caravan.worker.staging import Staging

VOCAB_SIZE = 200
PROMPT = [5, 6, 7, 6, 5]


class Sampler:
    """The sampler with a seat for each request, and every step fetched at once."""

    def __init__(self) -> None:
        self._sampler = SeatedSampler(VOCAB_SIZE, 20, Staging(torch.device("cpu")))
        self._seats: dict[int, int] = {}
        self._free = [7, 3, *range(8, 20)]

    def admit(self, admission: Admission) -> None:
        self._seats[admission.rid] = self._free.pop(0)
        self._sampler.admit(self._seats[admission.rid], admission)

    def release(self, rid: int) -> None:
        self._free.append(self._seats.pop(rid))
        self._sampler.release(self._free[-1])

    def sample(self, rids: Sequence[int], logits_SV: Tensor) -> list[Sampled]:
        seats = np.array([self._seats[rid] for rid in rids])
        rows = self._sampler.draw(seats, logits_SV).result()
        return [Sampled(rid, *row) for rid, row in zip(rids, rows, strict=True)]


def sampling(**changes: object) -> Sampling:
    return msgspec.structs.replace(Sampling(max_tokens=1000), **changes)


def admitted(parameters: Sampling, tokens: list[int] | None = None, rid: int = 0) -> Sampler:
    sampler = Sampler()
    sampler.admit(Admission(rid, PROMPT + (tokens or []), len(PROMPT), parameters))
    return sampler


def step_logits(step: int, rid: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * rid + step)
    return torch.randn(1, VOCAB_SIZE, generator=generator) * 2


def run(sampler: Sampler, steps: range, rid: int = 0) -> list[Sampled]:
    return [sampler.sample([rid], step_logits(step, rid))[0] for step in steps]


def tokens_of(results: list[Sampled]) -> list[int]:
    return [result.token for result in results]


MIXED = [
    sampling(temperature=0.0),
    sampling(seed=1),
    sampling(seed=2**64 - 1, temperature=0.7, logprobs=0),
    sampling(seed=3, top_p=0.8, logprobs=5, frequency_penalty=0.7),
    sampling(temperature=0.0, repetition_penalty=1.5, logprobs=20),
    sampling(seed=-5, top_k=10, min_p=0.02, presence_penalty=-1.0),
    sampling(seed=6, min_tokens=15, stop_token_ids=(1, 2, 3), logprobs=1),
    sampling(seed=7, logit_bias=((9, 5.0), (10, -100.0)), min_tokens=3, stop_token_ids=(9,)),
    sampling(
        temperature=0.0,
        repetition_penalty=0.6,
        frequency_penalty=1.0,
        presence_penalty=0.5,
        logit_bias=((1, 2.0),),
        logprobs=3,
    ),
]


def test_requests_in_one_batch_are_what_they_are_alone() -> None:
    alone = [
        run(admitted(parameters, rid=rid), range(30), rid) for rid, parameters in enumerate(MIXED)
    ]
    together = Sampler()
    for rid, parameters in enumerate(MIXED):
        together.admit(Admission(rid, PROMPT, len(PROMPT), parameters))
    for step in range(30):
        rids = [rid for rid in range(len(MIXED)) if rid != 2]
        rids = rids[step % 8 :] + rids[: step % 8]
        logits_SV = torch.cat([step_logits(step, rid) for rid in rids])
        expected = [alone[rid][step] for rid in rids]
        assert together.sample(rids, logits_SV) == expected
    assert run(together, range(30), rid=2) == alone[2]


@pytest.mark.parametrize("parameters", MIXED, ids=str)
@pytest.mark.parametrize("preempted_at", [0, 1, 14, 29])
def test_a_preempted_request_goes_on_as_if_nothing_had_happened(
    parameters: Sampling, preempted_at: int
) -> None:
    whole = run(admitted(parameters), range(30))
    sampler = admitted(parameters)
    before = run(sampler, range(preempted_at))
    sampler.release(0)
    sampler.admit(Admission(0, PROMPT + tokens_of(before), len(PROMPT), parameters))
    assert before + run(sampler, range(preempted_at, 30)) == whole


def test_tokens_follow_the_seed() -> None:
    def tokens(seed: int) -> list[int]:
        return tokens_of(run(admitted(sampling(seed=seed)), range(30)))

    assert tokens(1) == tokens(1)
    assert tokens(1) != tokens(2)
    assert tokens(2**64 - 1) == tokens(-1)
    assert tokens(2**63) == tokens(-(2**63)) != tokens(0)


def test_equal_logits_give_other_tokens_at_other_indices() -> None:
    sampler = admitted(sampling(seed=0))
    tokens = [sampler.sample([0], torch.zeros(1, VOCAB_SIZE))[0].token for _ in range(100)]
    assert len(set(tokens)) > 60  # 79 are expected


@pytest.mark.parametrize("generated", [0, 2])
def test_stops_are_forbidden_until_there_are_min_tokens(generated: int) -> None:
    parameters = sampling(temperature=0.0, min_tokens=3, stop_token_ids=(8, 9, VOCAB_SIZE))
    sampler = admitted(parameters, [1] * generated)
    logits = torch.zeros(1, VOCAB_SIZE)
    logits[0, [8, 9, 10]] = torch.tensor([5.0, 6.0, 4.0])
    tokens = [sampler.sample([0], logits.clone())[0].token for _ in range(5 - generated)]
    assert tokens == [10] * (3 - generated) + [9, 9]


def test_a_bias_does_not_allow_a_forbidden_stop() -> None:
    parameters = sampling(
        temperature=0.0, min_tokens=1, stop_token_ids=(9,), logit_bias=((9, 100.0), (4, 1.0))
    )
    sampler = admitted(parameters)
    tokens = [sampler.sample([0], torch.zeros(1, VOCAB_SIZE))[0].token for _ in range(2)]
    assert tokens == [4, 9]


def test_all_stops_forbidden_and_nothing_else_there() -> None:
    parameters = sampling(min_tokens=1, stop_token_ids=tuple(range(VOCAB_SIZE)))
    assert admitted(parameters).sample([0], step_logits(0))[0].token == 0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logit_bias_of_a_hundred_decides(temperature: float) -> None:
    favoured = sampling(temperature=temperature, logit_bias=((17, 100.0),))
    assert set(tokens_of(run(admitted(favoured), range(50)))) == {17}
    banned = tuple((token, -100.0) for token in range(VOCAB_SIZE) if token not in (3, 4))
    only = sampling(temperature=temperature, logit_bias=banned)
    assert set(tokens_of(run(admitted(only), range(50)))) <= {3, 4}
    same_for_all = sampling(
        temperature=temperature, logit_bias=tuple((t, -100.0) for t in range(VOCAB_SIZE))
    )
    plain = run(admitted(sampling(temperature=temperature)), range(50))
    shifted = run(admitted(same_for_all), range(50))
    assert sum(a != b for a, b in zip(plain, shifted, strict=True)) <= 1  # fp32 rounds near 100


def test_a_bias_on_a_token_that_does_not_exist_has_no_effect() -> None:
    parameters = sampling(logit_bias=((VOCAB_SIZE, 100.0), (-1, 100.0)))
    assert run(admitted(parameters), range(10)) == run(admitted(sampling()), range(10))


@pytest.mark.parametrize(
    ("repetition", "frequency", "presence"),
    [(1.3, 0.0, 0.0), (1.0, 0.4, 0.0), (1.0, 0.0, 0.6), (0.8, -0.3, 1.1), (1.7, 0.2, -0.4)],
)
def test_penalties_count_every_token(repetition: float, frequency: float, presence: float) -> None:
    """A whole generation with flat logits, long enough for 150 distinct tokens, by hand."""
    parameters = sampling(
        temperature=0.0,
        repetition_penalty=repetition,
        frequency_penalty=frequency,
        presence_penalty=presence,
        logit_bias=((0, 0.25), (5, 0.5)),
    )
    sampler = admitted(parameters)
    output: list[int] = []
    for step in range(250):
        logits = step_logits(step)
        expected = logits[0].double()
        expected[0] += 0.25
        expected[5] += 0.5
        for token in {*PROMPT, *output}:
            value = expected[token]
            expected[token] = value / repetition if value > 0 else value * repetition
        for token, count in Counter(output).items():
            expected[token] -= frequency * count + presence
        (result,) = sampler.sample([0], logits)
        torch.testing.assert_close(logits[0].double(), expected, rtol=1e-5, atol=1e-5)
        assert result.token == logits[0].argmax()
        output.append(result.token)


def test_more_distinct_tokens_than_there_was_room_for() -> None:
    sampler = admitted(sampling(temperature=0.0, presence_penalty=2.0))
    tokens = [sampler.sample([0], torch.zeros(1, VOCAB_SIZE))[0].token for _ in range(VOCAB_SIZE)]
    assert tokens == list(range(VOCAB_SIZE))


def test_logprobs_are_the_models_own() -> None:
    parameters = sampling(
        temperature=0.3,
        top_k=3,
        logprobs=4,
        logit_bias=((11, 50.0),),
        frequency_penalty=1.0,
        repetition_penalty=1.4,
        min_tokens=2,
        stop_token_ids=(12,),
    )
    sampler = admitted(parameters)
    for step in range(5):
        exact = step_logits(step)[0].double().log_softmax(-1)
        (result,) = sampler.sample([0], step_logits(step))
        assert result.logprobs is not None
        assert result.logprobs.logprob == pytest.approx(exact[result.token].item(), abs=1e-5)
        values, ids = exact.topk(4)
        assert [token for token, _ in result.logprobs.top] == ids.tolist()
        assert [value for _, value in result.logprobs.top] == pytest.approx(values.tolist())


def test_as_many_logprobs_as_each_request_asked_for() -> None:
    asked = [None, 0, 3, VOCAB_SIZE + 5, None, 1]
    sampler = Sampler()
    for rid, count in enumerate(asked):
        sampler.admit(Admission(rid, PROMPT, len(PROMPT), sampling(logprobs=count)))
    logits_SV = torch.cat([step_logits(0, rid) for rid in range(len(asked))])
    results = sampler.sample(range(len(asked)), logits_SV)
    found = [None if r.logprobs is None else len(r.logprobs.top) for r in results]
    assert found == [None, 0, 3, VOCAB_SIZE, None, 1]
    assert [result.rid for result in results] == list(range(len(asked)))


def test_results_survive_the_wire() -> None:
    (result,) = run(admitted(sampling(logprobs=2)), range(1))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(result), type=Sampled) == result


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_broken_logits_are_marked_and_hurt_nobody_else(broken: float) -> None:
    sampler = Sampler()
    for rid in (31, 32):
        sampler.admit(Admission(rid, PROMPT, len(PROMPT), sampling(presence_penalty=1.0)))
    logits_SV = torch.zeros(2, VOCAB_SIZE)
    logits_SV[1, 50] = broken
    first, second = sampler.sample([31, 32], logits_SV)
    assert first.token >= 0
    assert second == Sampled(32, -1)


def test_a_seat_forgets_its_last_request() -> None:
    sampler = admitted(sampling(temperature=0.0, repetition_penalty=2.0, logit_bias=((4, 9.0),)))
    run(sampler, range(5))
    sampler.release(0)
    for rid in range(1, 20):  # whoever gets the seat, and the memory of its penalties
        sampler.admit(Admission(rid, [1], 1, sampling(temperature=0.0, presence_penalty=1e-9)))
        (result,) = sampler.sample([rid], step_logits(50))
        assert result.token == step_logits(50).argmax()
        sampler.release(rid)


@pytest.mark.parametrize(
    "logits_SV", [torch.zeros(1, VOCAB_SIZE + 1), torch.zeros(2, VOCAB_SIZE)], ids=["V", "S"]
)
def test_logits_of_another_shape_are_our_bug(logits_SV: Tensor) -> None:
    with pytest.raises(AssertionError, match="200"):
        admitted(sampling()).sample([0], logits_SV)


def test_logits_of_another_type_are_our_bug() -> None:
    with pytest.raises(AssertionError, match="bfloat16"):
        admitted(sampling()).sample([0], step_logits(0).bfloat16())
