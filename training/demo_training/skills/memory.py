"""Repeating what was said, and finding it again many chunks later."""

from __future__ import annotations

from random import Random

from demo_training.dialogue import Dialogue, Split, belongs_to
from demo_training.lists import ADJECTIVES, NAMES, NOUNS, PLACES, TIMES, VERBS

_REPEAT = (
    "Repeat: {words}", "Say: {words}", "Repeat after me: {words}", "Please repeat: {words}",
    "Repeat these words: {words}",
)  # fmt: skip
_TOLD = (
    "The code for the {thing} is {code}.", "The code for the {thing} is {code}.",
    "Remember: the code for the {thing} is {code}.",
    "By the way, the code for the {thing} is {code}.",
    "The {thing} has the code {code}.",
)  # fmt: skip
_ASKED = (
    "What is the code for the {thing}?", "Tell me the code for the {thing}.",
    "Which code does the {thing} have?", "Do you remember the code for the {thing}?",
    "code for the {thing}?",
)  # fmt: skip
_NOT_TOLD = "I do not know the code for the {thing}."
_TAKEN = ("All right.", "I will remember that.")


def repeat(random: Random, split: Split) -> tuple[str, str]:
    """Words and numbers, said back."""
    words = []
    for _ in range(random.randint(1, 9)):
        kind = random.random()
        if kind < 0.7:
            words.append(random.choice(NOUNS + ADJECTIVES + NAMES))
        else:
            words.append(str(random.randint(0, 9999)))
    text = " ".join(words)
    return random.choice(_REPEAT).format(words=text), text


def long_repeat(random: Random, split: Split) -> tuple[str, str]:
    """Many words said back: the densest way to learn to copy."""
    words = [random.choice(NOUNS + ADJECTIVES + NAMES) for _ in range(random.randint(8, 40))]
    text = " ".join(words)
    return random.choice(_REPEAT).format(words=text), text


def filler(random: Random) -> str:
    """A sentence about nothing."""
    who = random.choice(
        [random.choice(NAMES), f"the {random.choice(ADJECTIVES)} {random.choice(NOUNS)}"]
    )
    form = random.random()
    if form < 0.5:
        text = f"{who} {random.choice(VERBS)} the {random.choice(NOUNS)} {random.choice(PLACES)}."
    elif form < 0.8:
        text = (
            f"{random.choice(TIMES)} {who} {random.choice(VERBS)} a {random.choice(ADJECTIVES)} "
            f"{random.choice(NOUNS)}."
        )
    else:
        text = (
            f"there were {random.randint(2, 60)} {random.choice(NOUNS)}s {random.choice(PLACES)}."
        )
    return text[0].upper() + text[1:]


def _things(random: Random, count: int) -> list[str]:
    things: set[str] = set()
    while len(things) < count:
        noun = random.choice(NOUNS)
        things.add(noun if random.random() < 0.5 else f"{random.choice(ADJECTIVES)} {noun}")
    return random.sample(sorted(things), count)


def _codes(random: Random, split: Split, count: int) -> dict[str, str]:
    codes = {}
    for thing in _things(random, count):
        code = ""
        while not code or not belongs_to(f"{thing} {code}", split):
            code = str(random.randint(0, 9999)).zfill(4)
        codes[thing] = code
    return codes


def lookup(
    random: Random,
    split: Split,
    *,
    sentences: int,
    facts: int,
    questions: int,
    tellings: int = 2,
    within: float = 1.0,
) -> Dialogue:
    """A long text with codes in it, then questions for some of them.

    A sentence has about 10 tokens. Codes are told twice, in the first part of the text (`within`):
    where a chunk ends inside a sentence, chunked layers do not see how it began, and one telling in
    25 is lost. In training the text may come in pieces.
    """
    codes = _codes(random, split, facts)
    told = [
        random.choice(_TOLD).format(thing=thing, code=code)
        for thing, code in codes.items()
        for _ in range(tellings)
    ]
    random.shuffle(told)
    room = max(len(told), round((sentences + len(told)) * within))
    places = dict(zip(random.sample(range(room), len(told)), told, strict=True))
    lines = [places.get(i) or filler(random) for i in range(sentences + len(told))]
    dialogue = Dialogue()
    if random.random() < 0.3:
        dialogue.system("You are a careful reader.")
    asked = list(codes.items())
    random.shuffle(asked)
    if split == "train" and random.random() < 0.3:
        pieces = random.randint(2, 4)
        for i in range(pieces):
            piece = lines[i * len(lines) // pieces : (i + 1) * len(lines) // pieces]
            dialogue.ask(" ".join(piece)).answer(random.choice(_TAKEN))
        lines = []
    first = True
    for thing, code in asked[:questions]:
        question = random.choice(_ASKED).format(thing=thing)
        dialogue.ask(" ".join([*lines, question]) if first and lines else question)
        dialogue.answer(f"The code for the {thing} is {code}.")
        first = False
    if split == "train" and random.random() < 0.5:
        thing = _things(random, 1)[0]
        if thing not in codes:
            question = random.choice(_ASKED).format(thing=thing)
            dialogue.ask(question).answer(_NOT_TOLD.format(thing=thing))
    return dialogue
