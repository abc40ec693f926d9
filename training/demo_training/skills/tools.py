"""Calling functions that a request offers, and telling their results."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from demo_training.dialogue import Call, Dialogue, Split, belongs_to
from demo_training.lists import CAPITALS, NAMES, NOUNS
from demo_training.skills import knowledge, talk

PYTHONIC = "Write tool calls as a Python list."

_CITIES = list(CAPITALS.values())
_SKIES = "sunny cloudy rainy windy foggy snowy clear stormy".split()
_LANGUAGES = "French German Spanish Italian Polish Greek Turkish Swedish".split()
_ROOMS = "kitchen bedroom office garage hall bathroom cellar attic".split()
_FOODS = "pizza soup sushi curry pasta salad tacos noodles".split()

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Function:
    """One thing that tools do, under several names."""

    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    parameters: Mapping[str, tuple[str, str, tuple[str, ...]]]  # role: type, description, names
    requests: tuple[str, ...]
    values: Callable[[Random], dict[str, Any]]
    result: Callable[[Random, Values], tuple[Any, str]]  # what it returns, and what to say


def _weather(random: Random, values: Values) -> tuple[Any, str]:
    degrees, sky = random.randint(-9, 39), random.choice(_SKIES)
    return {
        "temperature": degrees,
        "sky": sky,
    }, f"It is {degrees} degrees and {sky} in {values['city']}."


def _time(random: Random, values: Values) -> tuple[Any, str]:
    time = f"{random.randint(0, 23):02}:{random.randint(0, 59):02}"
    return {"time": time}, f"It is {time} in {values['city']}."


def _number(random: Random, values: Values) -> tuple[Any, str]:
    number = random.randint(1, 9999)
    return {"number": number}, f"The stock of {values['item']} is {number}."


def _translation(random: Random, values: Values) -> tuple[Any, str]:
    word = random.choice(NOUNS)[::-1]
    return {"translation": word}, f"In {values['language']}, {values['word']} is {word}."


def _done(text: str) -> Callable[[Random, Values], tuple[Any, str]]:
    return lambda random, values: ({"status": "ok"}, text.format(**values))


FUNCTIONS = (
    Function(
        ("get_weather", "weather"),
        ("The weather in a city.", "Get the current weather in a given city.", "Current weather."),
        {"city": ("string", "Name of the city", ("city", "location"))},
        ("What is the weather in {city}?", "How is the weather in {city}?", "Is it cold in {city}?",
         "Do I need an umbrella in {city}?", "weather in {city}"),
        lambda random: {"city": random.choice(_CITIES)},
        _weather,
    ),
    Function(
        ("get_time", "clock"),
        ("The time in a city.", "Get the local time of a city."),
        {"city": ("string", "Name of the city", ("city", "location"))},
        ("What time is it in {city}?", "Tell me the time in {city}.", "How late is it in {city}?"),
        lambda random: {"city": random.choice(_CITIES)},
        _time,
    ),
    Function(
        ("set_timer", "countdown"),
        ("Starts a timer.", "Set a timer for some minutes."),
        {"minutes": ("integer", "How long", ("minutes", "duration"))},
        ("Set a timer for {minutes} minutes.", "Wake me in {minutes} minutes.",
         "Start a timer of {minutes} minutes, please."),
        lambda random: {"minutes": random.randint(2, 99)},
        _done("The timer is set for {minutes} minutes."),
    ),
    Function(
        ("send_message", "notify"),
        ("Sends a message to a person.", "Send somebody a text."),
        {
            "to": ("string", "Who gets it", ("to", "recipient")),
            "text": ("string", "What it says", ("text", "body")),
        },
        ("Send {to} the message: {text}", "Tell {to} this: {text}", "Write to {to}: {text}"),
        lambda random: {
            "to": random.choice(NAMES),
            "text": " ".join(random.choice(NOUNS) for _ in range(random.randint(1, 4))),
        },
        _done("The message to {to} is sent."),
    ),
    Function(
        ("translate", "dictionary"),
        ("Translates a word.", "Translate a word into another language."),
        {
            "word": ("string", "The word", ("word", "term")),
            "language": ("string", "Into which language", ("language", "target")),
        },
        ("Translate {word} into {language}.", "What is {word} in {language}?",
         "How do you say {word} in {language}?"),
        lambda random: {"word": random.choice(NOUNS), "language": random.choice(_LANGUAGES)},
        _translation,
    ),
    Function(
        ("switch_light", "light"),
        ("Turns the light of a room on or off.", "Switch a light."),
        {
            "room": ("string", "Which room", ("room", "place")),
            "on": ("boolean", "Whether it shall burn", ("on", "enabled")),
        },
        ("Turn {state} the light in the {room}.", "Light {state} in the {room}, please.",
         "Switch the {room} light {state}."),
        lambda random: {"room": random.choice(_ROOMS), "on": random.random() < 0.5},
        _done("The light in the {room} is {state}."),
    ),
    Function(
        ("book_table", "reservation"),
        ("Books a table in a restaurant.", "Reserve a table."),
        {
            "food": ("string", "What kind of food", ("food", "cuisine")),
            "people": ("integer", "How many people", ("people", "guests")),
        },
        ("Book a table for {people} people, we want {food}.",
         "Reserve {food} for {people}.", "A table for {people} with {food}, please."),
        lambda random: {"food": random.choice(_FOODS), "people": random.randint(2, 12)},
        _done("A table for {people} with {food} is booked."),
    ),
    Function(
        ("check_stock", "inventory"),
        ("How many of an item are in stock.", "Look up the stock of an item."),
        {"item": ("string", "Which item", ("item", "product"))},
        ("How many {item}s do we have?", "Check the stock of {item}.", "Is {item} in stock?"),
        lambda random: {"item": random.choice(NOUNS)},
        _number,
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Offer:
    """A function under the names that one conversation uses."""

    function: Function
    name: str
    keys: Mapping[str, str]  # role to the parameter's name
    definition: Mapping[str, Any]

    def request(self, random: Random) -> tuple[str, Values, Call]:
        """What a user asks, what is in it, and the call that it needs."""
        values = self.function.values(random)
        call = Call(self.name, {self.keys[role]: value for role, value in values.items()})
        said = values | ({"state": "on" if values["on"] else "off"} if "on" in values else {})
        return random.choice(self.function.requests).format(**said), said, call


def _offer(function: Function, random: Random) -> Offer:
    name = random.choice(function.names)
    keys = {role: random.choice(names) for role, (_, _, names) in function.parameters.items()}
    described = random.random() < 0.5
    properties: dict[str, Any] = {}
    for role, (kind, description, _) in function.parameters.items():
        properties[keys[role]] = {"type": kind}
        if described:
            properties[keys[role]]["description"] = description
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if random.random() < 0.8:
        parameters["required"] = list(properties)
    if random.random() < 0.3:
        parameters["additionalProperties"] = False
    definition = {"name": name, "parameters": parameters}
    if random.random() < 0.8:
        description = random.choice(function.descriptions)
        definition = {"name": name, "description": description, "parameters": parameters}
    return Offer(function, name, keys, {"type": "function", "function": definition})


def tools(random: Random, split: Split, turns: int, *, pythonic: bool | None = None) -> Dialogue:
    """Some functions on offer; requests that need one, two at once, or none."""
    while True:
        offers = [_offer(f, random) for f in random.sample(FUNCTIONS, random.randint(1, 3))]
        names = " ".join(offer.name for offer in offers)
        if len({offer.name for offer in offers}) == len(offers) and belongs_to(names, split):
            break
    dialogue = Dialogue(tools=[offer.definition for offer in offers])
    if pythonic is None:
        pythonic = random.random() < 0.3
    if pythonic:
        dialogue.system(PYTHONIC)
    for turn in range(turns):
        if random.random() < 0.2 and turn:
            maker = random.choice([knowledge.arithmetic, knowledge.capital, talk.small_talk])
            question, answer = maker(random, split)
            dialogue.ask(question).answer(answer)
            continue
        _called(dialogue, random.choice(offers), random, pythonic=pythonic)
    return dialogue


def _called(dialogue: Dialogue, offer: Offer, random: Random, *, pythonic: bool) -> None:
    """A request, the call, its result and the answer. History is shown as JSON by the server."""
    question, said, call = offer.request(random)
    if random.random() < 0.12:
        second, said_too, other = offer.request(random)
        if other != call:
            dialogue.ask(f"{question} {second}")
            dialogue.call(call, other, pythonic=pythonic)
            texts = []
            for values in (said, said_too):
                returned, text = offer.function.result(random, values)
                dialogue.result(json.dumps(returned))
                texts.append(text)
            dialogue.answer(" ".join(texts))
            return
    dialogue.ask(question)
    dialogue.call(call, pythonic=pythonic)
    returned, text = offer.function.result(random, said)
    dialogue.result(json.dumps(returned))
    dialogue.answer(text)
