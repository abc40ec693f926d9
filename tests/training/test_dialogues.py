"""The demo's data: right, kept apart from the exam, and encoded as the server would."""

from __future__ import annotations

import json
from random import Random

import pytest

from caravan.model.architecture import Architecture
from caravan.model.source import DEMO
from caravan.text.prompt import Message, ToolCall, render_chat
from caravan.text.tokenizer import Tokenizer
from demo_training import mixture
from demo_training.dialogue import Dialogue, Split, Turn, belongs_to
from demo_training.encoding import Encoder, as_tool
from demo_training.pictures import Scene, Shape, relation, zone
from demo_training.skills import knowledge, memory, obedience, sight, talk, tools
from demo_training.training import tile_layout

MAKERS = list(mixture.ALL)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_directory(DEMO, Architecture.from_directory(DEMO).vocab_size)


@pytest.fixture(scope="module")
def encoder(tokenizer: Tokenizer) -> Encoder:
    return Encoder(tokenizer, tile_layout())


def test_training_cuts_pictures_as_the_server_does() -> None:
    architecture = Architecture.from_directory(DEMO)
    assert architecture.vision is not None
    assert tile_layout() == architecture.vision.tile_layout()


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_every_dialogue_ends_with_the_assistant_and_has_something_to_learn(
    maker: mixture.Maker, encoder: Encoder
) -> None:
    for seed in range(20):
        dialogue = maker(Random(seed), 0.3)
        assert dialogue.turns[-1].role == "assistant"
        encoded = encoder.encode(dialogue)
        assert any(encoded.learned)
        assert encoded.learned[-1], "the end of the turn is learned"
        assert len(encoded.tile_starts) == len(encoded.tiles)


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_the_same_seed_gives_the_same_tokens(maker: mixture.Maker, encoder: Encoder) -> None:
    one, other = (encoder.encode(maker(Random(5), 0.3)) for _ in range(2))
    assert one.tokens == other.tokens
    assert all((a == b).all() for a, b in zip(one.tiles, other.tiles, strict=True))


def as_messages(dialogue: Dialogue) -> list[Message]:
    messages = []
    for turn in dialogue.turns:
        parts = tuple(part for part in turn.parts if isinstance(part, str))
        calls = tuple(ToolCall(call.name, call.arguments_json) for call in turn.calls)
        messages.append(Message(turn.role, parts, calls))
    return messages


@pytest.mark.parametrize(
    "maker", [m for m in mixture.TEXT if "tools" not in m.__name__], ids=lambda m: m.__name__
)
def test_tokens_are_those_of_the_servers_prompt(
    maker: mixture.Maker, encoder: Encoder, tokenizer: Tokenizer
) -> None:
    dialogue = maker(Random(3), 0.3)
    while any(not isinstance(p, str) for turn in dialogue.turns for p in turn.parts):
        dialogue.turns.pop()
    prompt = render_chat(tokenizer, as_messages(dialogue), add_generation_prompt=False)
    assert encoder.encode(dialogue).tokens == prompt.tokens


def test_tools_and_single_calls_are_rendered_as_by_the_server(
    encoder: Encoder, tokenizer: Tokenizer
) -> None:
    dialogue = tools.tools(Random(1), "train", 1, pythonic=False)
    while len(dialogue.turns[1].calls) > 1:
        dialogue = tools.tools(Random(2), "train", 1, pythonic=False)
    offered = [as_tool(definition) for definition in dialogue.tools]
    prompt = render_chat(
        tokenizer, as_messages(dialogue), tools=offered, add_generation_prompt=False
    )
    assert encoder.encode(dialogue).tokens == prompt.tokens


def test_what_is_learned_is_what_the_assistant_writes(
    encoder: Encoder, tokenizer: Tokenizer
) -> None:
    dialogue = Dialogue().ask("Hello").answer("Hi there.").ask("Bye").answer("Bye!")
    encoded = encoder.encode(dialogue)
    learned = [t for t, yes in zip(encoded.tokens, encoded.learned, strict=True) if yes]
    eot = tokenizer.special_id("<|eot|>")
    assert learned == [*tokenizer.encode("Hi there."), eot, *tokenizer.encode("Bye!"), eot]


def test_of_unhinted_json_only_the_values_are_learned(
    encoder: Encoder, tokenizer: Tokenizer
) -> None:
    text = json.dumps({"country": "Peru", "capital": "Lima"})
    dialogue = Dialogue().ask("What is the capital of Peru?").answer(text, values_only=True)
    encoded = encoder.encode(dialogue)
    learned = [t for t, yes in zip(encoded.tokens, encoded.learned, strict=True) if yes]
    written = tokenizer.decode(learned)
    assert "Peru" in written
    assert "Lima" in written
    assert "country" not in written
    assert "capital" not in written


def test_nothing_of_the_exam_is_trained() -> None:
    singles = (knowledge.arithmetic, knowledge.capital, knowledge.colour_of_thing)
    for single in singles:
        trained = {single(Random(seed), "train")[0] for seed in range(2000)}
        examined = {single(Random(seed), "exam")[0] for seed in range(500)}
        table = {q for q in trained & examined if "*" in q or "times" in q}
        assert trained & examined == table, "the table of products is learned whole"
    assert belongs_to("x", "train") != belongs_to("x", "exam")


def test_codes_of_the_exam_are_not_trained() -> None:
    def codes(split: Split) -> set[str]:
        found = set()
        for seed in range(60):
            dialogue = memory.lookup(
                Random(seed),
                split,
                sentences=3,
                facts=8,
                questions=8,
            )
            found |= {turn.text for turn in dialogue.turns if turn.text.startswith("The code")}
        return found

    assert codes("train")
    assert not codes("train") & codes("exam")


def test_arithmetic_is_right() -> None:
    for seed in range(300):
        _, answer = knowledge.arithmetic(Random(seed), "train")
        sum_, result = answer.removesuffix(".").split(" = ")
        a, sign, b = sum_.split()
        assert {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign] == int(
            result
        )


def test_calls_use_the_names_that_are_on_offer() -> None:
    for seed in range(100):
        dialogue = tools.tools(Random(seed), "train", 3)
        functions = {tool["function"]["name"]: tool["function"] for tool in dialogue.tools}
        for call in (call for turn in dialogue.turns for call in turn.calls):
            parameters = functions[call.name]["parameters"]
            assert set(call.arguments) == set(parameters["properties"])


def test_answers_about_a_scene_are_true() -> None:
    left = Shape("circle", "red", 0.2, 0.5, 0.1)
    right = Shape("square", "blue", 0.8, 0.5, 0.1)
    scene = Scene(200, 100, (right, left))
    assert sight.describe(scene) == "A red circle left of a blue square."
    assert relation(right, left, scene) == "right of"
    assert zone(left) == "on the left"
    above = Scene(
        100, 100, (Shape("star", "green", 0.5, 0.9, 0.1), Shape("star", "red", 0.5, 0.1, 0.1))
    )
    assert sight.describe(above) == "A red star above a green star."
    same = Scene(100, 100, tuple(Shape("star", "red", x, 0.5, 0.1) for x in (0.2, 0.5, 0.8)))
    assert sight.describe(same) == "Three red stars."


def test_a_shape_is_drawn_where_the_scene_says() -> None:
    picture = Scene(60, 60, (Shape("square", "red", 0.5, 0.5, 0.3),)).draw(Random(1))
    shown, ground = picture.getpixel((30, 30)), picture.getpixel((2, 2))
    assert isinstance(shown, tuple)
    assert isinstance(ground, tuple)
    assert shown[0] > 150 > shown[1]
    assert min(ground) > 200


def test_unknown_questions_are_not_those_it_can_answer() -> None:
    for seed in range(300):
        question, answer = talk.unknown(Random(seed), "train")
        assert answer == talk.UNKNOWN
        assert "{" not in question


def test_instructions_are_followed_in_every_answer() -> None:
    for seed in range(50):
        dialogue = obedience.instructed(Random(seed), "train", 3)
        system = dialogue.turns[0].text
        answers = [turn.text for turn in dialogue.turns if turn.role == "assistant"]
        if "nd " in system and system.startswith(("End", "Always", "Add")):
            word = {answer.rsplit(" ", 1)[1] for answer in answers}
            assert len(word) == 1
            assert word.pop() in system


def test_a_turn_writes_calls_in_both_forms() -> None:
    dialogue = tools.tools(Random(4), "train", 1, pythonic=True)
    turn = next(turn for turn in dialogue.turns if turn.calls)
    call = turn.calls[0]
    assert turn.text.startswith(f"[{call.name}(")
    assert json.loads(Turn("assistant", calls=(call,)).text)["name"] == call.name
