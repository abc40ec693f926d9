"""Questions about pictures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from random import Random

from demo_training.dialogue import Dialogue, Part, Split
from demo_training.lists import NUMBER_WORDS
from demo_training.pictures import (
    COLOURS,
    KINDS,
    Scene,
    Shape,
    draw_digit,
    place,
    relation,
    zone,
)

_DESCRIBE = (
    "What is in the picture?", "Describe the picture.", "What do you see?", "What is this?",
    "Describe this image.", "What does the picture show?", "What is in this image?",
    "Tell me what you see.",
)  # fmt: skip
_DIGIT = ("Which digit is this?", "What digit is this?", "Read the digit.", "Which number is this?",
          "What number do you see?")  # fmt: skip
_COMPARE = ("Compare the pictures.", "What is the difference?", "How do the pictures differ?",
            "Are the two pictures the same?", "Compare these two images.")  # fmt: skip
_MORE = ("Which picture has more shapes?", "Where are more shapes?")

Asked = tuple[str, str]


def _number(count: int, singular: str) -> str:
    verb, noun = ("is", singular) if count == 1 else ("are", f"{singular}s")
    return f"There {verb} {NUMBER_WORDS[count]} {noun}."


def _a(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _big(text: str) -> str:
    return text[0].upper() + text[1:]


def describe(scene: Scene) -> str:
    """One sentence about all shapes."""
    shapes = scene.left_to_right()
    if len(shapes) == 1:
        return f"{_big(_a(shapes[0].name))}."
    if len({shape.name for shape in shapes}) == 1:
        return f"{_big(NUMBER_WORDS[len(shapes)])} {shapes[0].name}s."
    if len(shapes) == 2:
        first, second = shapes
        how = relation(first, second, scene)
        if how == "below":
            first, second, how = second, first, "above"
        return f"{_big(_a(first.name))} {how} {_a(second.name)}."
    names = [_a(shape.name) for shape in shapes]
    return f"{_big(NUMBER_WORDS[len(shapes)])} shapes: {', '.join(names[:-1])} and {names[-1]}."


def _ask_describe(scene: Scene, random: Random) -> Asked | None:
    return random.choice(_DESCRIBE), describe(scene)


def _ask_count(scene: Scene, random: Random) -> Asked | None:
    kind = random.choice(["shape", "kind", "colour"])
    if kind == "kind":
        thing = random.choice(KINDS)
        count = sum(shape.kind == thing for shape in scene.shapes)
    elif kind == "colour":
        colour = random.choice([random.choice(list(COLOURS)), random.choice(scene.shapes).colour])
        count, thing = sum(shape.colour == colour for shape in scene.shapes), f"{colour} shape"
    else:
        count, thing = len(scene.shapes), "shape"
    form = random.choice(["How many {}s are there?", "How many {}s do you see?", "Count the {}s."])
    return form.format(thing), _number(count, thing)


def _unique(scene: Scene, random: Random, by: Callable[[Shape], str]) -> Shape | None:
    counts = Counter(by(shape) for shape in scene.shapes)
    only = [shape for shape in scene.shapes if counts[by(shape)] == 1]
    return random.choice(only) if only else None


def _ask_colour(scene: Scene, random: Random) -> Asked | None:
    shape = _unique(scene, random, lambda shape: shape.kind)
    if shape is None:
        return None
    form = random.choice(
        ["What colour is the {}?", "What color is the {}?", "Which colour has the {}?"]
    )
    return form.format(shape.kind), f"The {shape.kind} is {shape.colour}."


def _ask_kind(scene: Scene, random: Random) -> Asked | None:
    shape = _unique(scene, random, lambda shape: shape.colour)
    if shape is None:
        return None
    form = random.choice(["What shape is {}?", "Which shape is {}?", "What is {}?"])
    return form.format(shape.colour), f"The {shape.kind} is {shape.colour}."


def _ask_where(scene: Scene, random: Random) -> Asked | None:
    shape = _unique(scene, random, lambda shape: shape.name)
    if shape is None or len(scene.shapes) > 2 or (where := zone(shape)) is None:
        return None
    return f"Where is the {shape.name}?", f"The {shape.name} is {where}."


def _ask_exists(scene: Scene, random: Random) -> Asked | None:
    shape = random.choice(scene.shapes)
    if random.random() < 0.5:
        return f"Is there {_a(shape.name)}?", f"Yes, there is {_a(shape.name)}."
    if any(other != shape and other.name == shape.name for other in scene.shapes):
        return None
    name = random.choice([
        f"{random.choice(list(COLOURS))} {shape.kind}", f"{shape.colour} {random.choice(KINDS)}",
    ])  # fmt: skip
    if any(shape.name == name for shape in scene.shapes):
        return None
    return f"Is there {_a(name)}?", f"No, there is no {name}."


def _ask_side(scene: Scene, random: Random) -> Asked | None:
    if len(scene.shapes) != 2 or scene.shapes[0].name == scene.shapes[1].name:
        return None
    one, other = random.sample(scene.shapes, 2)
    how = relation(one, other, scene)
    if random.random() < 0.5:
        return f"What is {how} the {other.name}?", f"{_big(_a(one.name))}."
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    claimed = random.choice([how, opposite[how]])
    answer = "Yes" if claimed == how else "No"
    return (
        f"Is the {one.name} {claimed} the {other.name}?",
        f"{answer}, the {one.name} is {how} the {other.name}.",
    )


def _ask_json(scene: Scene, random: Random) -> Asked | None:
    if len(scene.shapes) != 1:
        question = 'How many shapes are there? Answer as JSON with the key "count".'
        return question, json.dumps({"count": len(scene.shapes)})
    shape = scene.shapes[0]
    question = 'What is in the picture? Answer as JSON with the keys "shape" and "colour".'
    return question, json.dumps({"shape": shape.kind, "colour": shape.colour})


Asker = Callable[[Scene, Random], Asked | None]  # None: the scene is none for this question

ASKERS: dict[str, Asker] = {
    "describe": _ask_describe, "count": _ask_count, "colour": _ask_colour, "kind": _ask_kind,
    "where": _ask_where, "exists": _ask_exists, "side": _ask_side, "json": _ask_json,
}  # fmt: skip
_OFTEN = [*ASKERS.values(), _ask_describe, _ask_side]


def scene(random: Random, largest: int = 6) -> Scene:
    """One shape, two, some of a kind, or some of any kind."""
    count = random.choice([1, 1, 1, 2, 2, 2, 2, 3, 3, 4, 5, 6])
    count = min(count, largest)
    alike = (random.choice(list(COLOURS)), random.choice(KINDS))
    if count > 2 and random.random() < 0.5:
        return place([alike] * count, random)
    if count > 3 or (count == 3 and random.random() < 0.3):
        kind = random.choice(KINDS)
        colours = random.sample(list(COLOURS), 2)
        return place([(random.choice(colours), kind) for _ in range(count)], random, x_gap=0.07)
    names = [(random.choice(list(COLOURS)), random.choice(KINDS)) for _ in range(count)]
    return place(names, random, x_gap=0.07 if count > 2 else 0)


def _with_pictures(question: str, pictures: list[Part], random: Random) -> list[Part]:
    return [*pictures, question] if random.random() < 0.6 else [question, *pictures]


def shapes(random: Random, split: Split, turns: int, largest: int = 6) -> Dialogue:
    """Questions about one picture."""
    shown = scene(random, largest)
    picture = shown.draw(random)
    dialogue = Dialogue()
    asked: set[str] = set()
    while len(asked) < turns:
        found = random.choice(_OFTEN)(shown, random)
        if found is None or found[0] in asked:
            turns -= random.random() < 0.1  # a simple scene has few questions
            if asked:
                continue
            turns = max(turns, 1)
            continue
        question, answer = found
        parts: list[Part] = [question]
        if not asked:
            parts = _with_pictures(question, [picture], random)
        dialogue.ask(*parts).answer(answer)
        asked.add(question)
    return dialogue


def shape_question(random: Random, kind: str) -> Dialogue:
    """One question of a kind (a key of ASKERS) about a new picture."""
    while True:
        shown = scene(random)
        if found := ASKERS[kind](shown, random):
            question, answer = found
            picture = shown.draw(random)
            return Dialogue().ask(*_with_pictures(question, [picture], random)).answer(answer)


def digits(random: Random, split: Split, turns: int) -> Dialogue:
    """A digit; then others."""
    dialogue = Dialogue()
    for _ in range(turns):
        digit = random.randint(0, 9)
        picture = draw_digit(digit, random)
        dialogue.ask(*_with_pictures(random.choice(_DIGIT), [picture], random))
        dialogue.answer(f"It is {_a8(digit)}.")
    return dialogue


def _a8(digit: int) -> str:
    return f"an {digit}" if digit == 8 else f"a {digit}"


def compare(random: Random, split: Split) -> Dialogue:
    """Two pictures."""
    first = scene(random, 1 if random.random() < 0.7 else 4)
    second = scene(random, len(first.shapes) if len(first.shapes) == 1 else 4)
    if len(first.shapes) == 1 and random.random() < 0.4:
        shape = first.shapes[0]
        second = place([(shape.colour, shape.kind)], random)
    pictures: list[Part] = [first.draw(random), second.draw(random)]
    if len(first.shapes) == len(second.shapes) == 1:
        one, other = first.shapes[0].name, second.shapes[0].name
        question = random.choice(_COMPARE)
        answer = (
            f"Both pictures show {_a(one)}." if one == other
            else f"The first picture shows {_a(one)}, the second {_a(other)}."
        )  # fmt: skip
    else:
        question = random.choice(_MORE)
        counts = (len(first.shapes), len(second.shapes))
        answer = (
            "Both have the same number." if counts[0] == counts[1]
            else f"The {'first' if counts[0] > counts[1] else 'second'} picture has more shapes."
        )  # fmt: skip
    dialogue = Dialogue()
    return dialogue.ask(*_with_pictures(question, pictures, random)).answer(answer)
