"""The demo model's exam, with --run-exam: a quick slice, and the whole, held to its targets."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from caravan.model.source import DEMO
from eval.asking import Answered, ask_all
from eval.faults import FAULTS
from eval.in_process_exam import accuracy
from eval.questions import SKILLS, paper
from eval.report import by_skill, missed, wrong_answers
from system.running_server import RunningServer

QUICK = 3  # questions of each skill
QUICK_TARGET = 0.9  # of all: each may be a hard one
FULL = 60
FAULT_QUESTIONS = 8
NOTICED = 0.03  # of the mean accuracy: a fault that costs less would not be seen


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    with RunningServer() as server:
        url = f"{server.until_ready().url}/v1"
        with openai.OpenAI(base_url=url, api_key="none", timeout=600) as client:
            yield client


def explain(answered: list[Answered]) -> str:
    return wrong_answers(answered, limit=10)


@pytest.mark.exam
def test_a_quick_slice(client: openai.OpenAI) -> None:
    answered = ask_all(client, paper(QUICK))
    assert {one.question.skill for one in answered} == set(SKILLS)
    right = sum(one.right for one in answered) / len(answered)
    assert right >= QUICK_TARGET, explain(answered)


@pytest.mark.exam
def test_the_whole_exam_meets_its_targets(client: openai.OpenAI) -> None:
    answered = ask_all(client, paper(FULL))
    assert missed(by_skill(answered)) == {}, explain(answered)


@pytest.mark.exam
def test_every_fault_is_noticed() -> None:
    questions = paper(FAULT_QUESTIONS)
    means = {}
    for fault in FAULTS:
        found = accuracy(fault, DEMO, questions)
        means[fault.name] = sum(found.values()) / len(found)
    sound = means.pop("none")
    assert {name: mean for name, mean in means.items() if mean > sound - NOTICED} == {}
