"""Output held to a grammar, in the engine: masks at every draw, whatever is in the batch."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from caravan.config import SchedulerConfig
from caravan.engine.constraints import FAILED, Constraints
from caravan.engine.engine import Engine
from caravan.engine.vocabulary import load_compiler
from caravan.grammars import constraints as grammars
from caravan.grammars.matchers import Matcher
from caravan.messages import Delta, Generate, Sampling
from caravan.scheduling.scheduler import Scheduler
from caravan.text.tokenizer import Tokenizer
from caravan.worker.runner import Runner
from in_process import load

PROMPT = list(b"Answer: ")
DIGITS = grammars.regex("[0-9]{3}(-[0-9]{3}){10}")  # 43 characters: past a chunk boundary
WORDS = grammars.choice(["yes", "no", "perhaps"])


@pytest.fixture(scope="module")
def directory(tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint("scout")


@pytest.fixture(scope="module")
def runner(directory: Path) -> Runner:
    return load(directory)


@pytest.fixture(scope="module")
def tokenizer(directory: Path) -> Tokenizer:
    return Tokenizer.from_directory(directory)


def new_engine(
    runner: Runner, directory: Path, *, ahead: bool, num_pages: int | None = None
) -> Engine:
    config = SchedulerConfig(max_num_seqs=64, max_num_batched_tokens=64)
    num_pages = num_pages or runner.num_pages
    scheduler = Scheduler(runner.layout, num_pages, config, runner.tile_slots)
    compiler = load_compiler(directory, runner.vocab_size)
    constraints = Constraints(compiler, runner.vocab_size)
    return Engine(runner, scheduler, constraints, async_scheduling=ahead)


_rids = iter(range(10**6, 2 * 10**6))


def request(
    tokenizer: Tokenizer, grammar: str | None, seed: int = 0, max_tokens: int = 60
) -> Generate:
    sampling = Sampling(
        max_tokens=max_tokens, seed=seed, temperature=1.5, stop_token_ids=tokenizer.stop_ids
    )
    return Generate(next(_rids), PROMPT, sampling, grammar=grammar)


def run(engine: Engine, requests: Sequence[Generate]) -> dict[int, list[Delta]]:
    """The deltas of all requests, by rid, when all have ended."""
    deltas: dict[int, list[Delta]] = {request.rid: [] for request in requests}
    for each in requests:
        engine.add(each)
    deadline = time.monotonic() + 60
    while engine.has_work or engine.compiling:
        output = engine.step()
        for delta in output.deltas if output else []:
            deltas.setdefault(delta.rid, []).append(delta)
        assert time.monotonic() < deadline
    assert engine.stats.pages_owned == 0
    return deltas


def text(tokenizer: Tokenizer, deltas: list[Delta]) -> str:
    return tokenizer.decode([token for delta in deltas for token in delta.tokens])


@pytest.mark.parametrize("ahead", [False, True], ids=["one by one", "ahead"])
def test_each_output_is_held_to_its_own_grammar(
    runner: Runner, directory: Path, tokenizer: Tokenizer, ahead: bool
) -> None:
    """Beside requests without one, whose tokens are what they are alone."""
    engine = new_engine(runner, directory, ahead=ahead)
    free = [request(tokenizer, None, seed) for seed in range(3)]
    alone = [text(tokenizer, run(engine, [each])[each.rid]) for each in free]
    grammared = [
        request(tokenizer, grammar, seed) for seed in range(3) for grammar in (DIGITS, WORDS)
    ]
    freed = [request(tokenizer, None, seed) for seed in range(3)]
    deltas = run(engine, [*grammared, *freed])
    for each in grammared:
        said = text(tokenizer, deltas[each.rid])
        if each.grammar == DIGITS:
            assert re.fullmatch("[0-9]{3}(-[0-9]{3}){10}", said), said
        else:
            assert said in ("yes", "no", "perhaps")
        assert deltas[each.rid][-1].finish == "stop"
    assert [text(tokenizer, deltas[each.rid]) for each in freed] == alone
    outputs = {text(tokenizer, deltas[each.rid]) for each in grammared}
    assert len(outputs) > 3, "different seeds say different things"


def test_steps_ahead_change_nothing(runner: Runner, directory: Path, tokenizer: Tokenizer) -> None:
    said = []
    for ahead in (False, True):
        engine = new_engine(runner, directory, ahead=ahead)
        requests = [request(tokenizer, DIGITS, seed) for seed in range(4)]
        deltas = run(engine, requests)
        said.append([text(tokenizer, deltas[each.rid]) for each in requests])
    assert said[0] == said[1]


@pytest.mark.parametrize("ahead", [False, True], ids=["one by one", "ahead"])
def test_preemption_changes_nothing(
    runner: Runner, directory: Path, tokenizer: Tokenizer, ahead: bool
) -> None:
    wide = new_engine(runner, directory, ahead=ahead)
    requests = [request(tokenizer, DIGITS, seed) for seed in range(4)]
    expected = [text(tokenizer, deltas) for deltas in run(wide, requests).values()]
    num_pages = int(1.5 * runner.layout.pages_needed(len(PROMPT) + 50))
    narrow = new_engine(runner, directory, ahead=ahead, num_pages=num_pages)
    again = [request(tokenizer, DIGITS, seed, max_tokens=44) for seed in range(4)]
    assert [text(tokenizer, deltas) for deltas in run(narrow, again).values()] == expected
    assert narrow.stats.preemptions > 0


def test_max_tokens_cuts_a_grammar_short(
    runner: Runner, directory: Path, tokenizer: Tokenizer
) -> None:
    engine = new_engine(runner, directory, ahead=False)
    [deltas] = run(engine, [request(tokenizer, DIGITS, max_tokens=5)]).values()
    assert deltas[-1].finish == "length"
    assert re.fullmatch("[0-9]{3}-[0-9]", text(tokenizer, deltas))


@pytest.mark.parametrize("ahead", [False, True], ids=["one by one", "ahead"])
@pytest.mark.parametrize("where", ["mask", "token"])
def test_a_matcher_that_fails_ends_its_request_alone(
    runner: Runner,
    directory: Path,
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
    ahead: bool,
    where: str,
) -> None:
    """After some tokens, as when a limit of the parser is reached."""
    engine = new_engine(runner, directory, ahead=ahead)
    good, bad = request(tokenizer, DIGITS, 1), request(tokenizer, WORDS, 2)
    accepted: dict[int, int] = {}
    genuine = Matcher.accept

    def accept(self: Matcher, token: int) -> bool:
        accepted[id(self)] = accepted.get(id(self), 0) + 1
        first = next(iter(accepted))
        if id(self) == first and accepted[first] == 2:
            self.failed = "is too complex"
            return where == "mask"
        return genuine(self, token)

    monkeypatch.setattr(Matcher, "accept", accept)
    deltas = run(engine, [bad, good])
    failed = [rid for rid, given in deltas.items() if given[-1].failure]
    assert len(failed) == 1
    assert deltas[failed[0]][-1].failure == FAILED
    [other] = {bad.rid, good.rid} - set(failed)
    assert deltas[other][-1].finish == "stop"
    assert text(tokenizer, deltas[other])


def test_a_grammar_that_does_not_compile_ends_its_request_alone(
    runner: Runner, directory: Path, tokenizer: Tokenizer
) -> None:
    """The API has checked it; here it must cost one request, never the engine."""
    engine = new_engine(runner, directory, ahead=False)
    bad, good = request(tokenizer, "start: nothing"), request(tokenizer, WORDS)
    deltas = run(engine, [bad, good])
    [failure] = deltas[bad.rid]
    assert failure.failure
    assert deltas[good.rid][-1].finish == "stop"


def test_a_request_that_leaves_while_its_grammar_compiles_is_forgotten(
    runner: Runner, directory: Path, tokenizer: Tokenizer
) -> None:
    engine = new_engine(runner, directory, ahead=False)
    left, stays = request(tokenizer, DIGITS), request(tokenizer, WORDS)
    engine.add(left)
    engine.abort(left.rid)
    deltas = run(engine, [stays])
    assert deltas[stays.rid][-1].finish == "stop"
    assert engine.stats.waiting == engine.stats.running == 0
