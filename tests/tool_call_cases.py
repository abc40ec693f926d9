"""Outputs of models, and what they say."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex

from caravan.text.tool_calls import CallableTool, CallPart, CallStart, Event, ToolCallParser

START, END = "<|python_start|>", "<|python_end|>"

F = CallableTool("f", parameters=("a", "b"))
TOOLS = (
    F,
    CallableTool("g"),
    CallableTool("get-weather.v2"),
    CallableTool("brave_search", parameters=("query",)),
    CallableTool("patch", "custom"),
    CallableTool("ge", "custom"),
)
WITH_CODE = (*TOOLS, CallableTool("code_interpreter", parameters=("code",)))

# Content as it is; a call as its tool's name and its arguments or input.
Output = list[str | tuple[str, str]]


def merged(events: Iterable[Event]) -> Output:
    """What the events say, however it was cut."""
    output: Output = []
    num_calls = 0
    for event in events:
        last = output[-1] if output else None
        if isinstance(event, CallStart):
            assert event.index == num_calls
            num_calls += 1
            output.append((event.tool.name, ""))
        elif isinstance(event, CallPart):
            assert event.text
            assert event.index == num_calls - 1
            assert isinstance(last, tuple), "a part follows its call's start or another part"
            output[-1] = (last[0], last[1] + event.text)
        else:
            assert event.text
            if isinstance(last, str):
                output[-1] = last + event.text
            else:
                output.append(event.text)
    return output


def parse(
    text: str,
    cuts: Iterable[int] = (),
    *,
    tools: Sequence[CallableTool] = TOOLS,
    enforced: bool = False,
    cut: bool = False,
) -> Output:
    parser = ToolCallParser(tools, enforced=enforced)
    events = []
    for start, end in itertools.pairwise([0, *sorted(cuts), len(text)]):
        events += parser.push(text[start:end])
    return merged(events + parser.finish(cut=cut))


def calls(output: Output) -> list[tuple[str, str]]:
    return [part for part in output if isinstance(part, tuple)]


def content(output: Output) -> str:
    return "".join(part for part in output if isinstance(part, str))


class WatchedText(str):
    """Text that counts the characters that are looked at."""

    __slots__ = ("num_seen",)
    num_seen: int

    def __new__(cls, text: str) -> WatchedText:
        watched = super().__new__(cls, text)
        watched.num_seen = 0
        return watched

    def __getitem__(self, place: SupportsIndex | slice) -> str:
        item = super().__getitem__(place)
        self.num_seen += len(item)
        return item

    def find(self, wanted: str, *bounds: Any) -> int:
        start, end, _ = slice(*bounds).indices(len(self)) if bounds else (0, len(self), 1)
        self.num_seen += end - start
        return super().find(wanted, start, end)


def contents(*texts: str) -> list[tuple[str, Output]]:
    """Cases without a call."""
    return [(text, [text]) for text in texts]


def without_markers(text: str) -> str:
    return text.replace(START, "").replace(END, "")


FA = ("f", '{"a":1}')
G = ("g", "{}")
OBJECT = '{"name": "f", "parameters": {"a": 1}}'

PYTHONIC: list[tuple[str, Output]] = [
    ("[f(a=1), g()]", [FA, G]),
    ("[f(a=1)]", [FA]),
    (" [\nf (\n a = 1\n)\t,\ng ( ) , ]\n", [" ", FA, G]),
    ("[f(a=1), g()", [FA, G]),
    ("[f(a=1", [FA]),
    ("[f(a=1)] and more", [FA, " and more"]),
    ("Let me see: [f(a=1)]", ["Let me see: ", FA]),
    ("x [f(a=1)] y [g()] z", ["x ", FA, " y ", G, " z"]),
    ('[f("x", True)]', [("f", '{"a":"x","b":true}')]),
    ("[f(1, **{'b': (2,)}, c={d: [None]})]", [("f", '{"a":1,"b":[2],"c":{"d":[null]}}')]),
    ('[get-weather.v2(city="Łódź")]', [("get-weather.v2", '{"city":"Łódź"}')]),
    ('brave_search.call(query="x y")', [("brave_search", '{"query":"x y"}')]),
    ('[brave_search.call(query="x")]', [("brave_search", '{"query":"x"}')]),
    ("f(a=1)", [FA]),
    ("\n f(a=1);\ng(), f(a=1)\ng()", ["\n ", FA, G, FA, G]),
    ("f(a=1) is what I call", [FA, " is what I call"]),
    ("I call f(a=1)", ["I call f(a=1)"]),
    ("[f(a=1)] f(a=1) then f(a=1)", [FA, FA, " then f(a=1)"]),
    ("then [f(a=1)] f(a=1)", ["then ", FA, " f(a=1)"]),
    ("[f(a=1)]\n\n[g()];[g()],  [g()][g()]", [FA, G, G, G, G]),
    ("[f(a=1)] , and; ", [FA, " , and; "]),
    ("[f(a=1)];", [FA, ";"]),
    ("[f(a=1)]]", [FA, "]"]),
    ("[f(a=1), h(), g()]", [FA, ", h(), g()]"]),
    ("[h(), f(a=1)]", ["[h(), f(a=1)]"]),
    (f"[f(a=1), x {OBJECT}] y", [FA, ", x ", FA, "] y"]),
    ("[[f(a=1)]]", ["[", FA, "]"]),
    ("[patch(a=1)]", ["[patch(a=1)]"]),
    ("[ff(a=1)] [f] [f a] [] [1, 2]", ["[ff(a=1)] [f] [f a] [] [1, 2]"]),
    ("[f(", [("f", "{}")]),
    ("[f", ["[f"]),
    ("[f(a=1, b=], g()] x", [("f", '{"a":1,"b":null}'), "], g()] x"]),
    ('[f(a="x" y, b=1)]', [("f", '{"a":"x"}'), "y, b=1)]"]),
    ("f(a=1 g(b=2))", [FA, "g(b=2))"]),
    ("[f(1, 2, x y)]", [("f", '{"a":1,"b":2}'), "x y)]"]),
    ("[f(1, 2, x", [("f", '{"a":1,"b":2}'), "x"]),
    ("[f(a=[{'b", [("f", '{"a":[{"b":null}]}')]),
    ('[f(a="x\\', [("f", '{"a":"x\\\\"}')]),
    ("[f(a=" + "[" * 129 + "]", [("f", '{"a":' + "[" * 127 + "]" * 127 + "}"), "[[]"]),
]
OBJECTS: list[tuple[str, Output]] = [
    ('{"type": "function", "name": "f", "parameters": {"a": 1}}', [FA]),
    ("{'parameters' : {'a': 1,}, 'type': 'function', 'name': 'f',}", [FA]),
    ('{"name": "f", "arguments": {"a": 1}, "id": {"x": [1]}}', [FA]),
    ('{"id": "call_1", "name": "f", "arguments": {"a": 1}}', [FA]),
    ('{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}, "id": 3}', [FA]),
    ('{"function": {"arguments": {"a": 1}, "name": "f"}, "type": "function"}', [FA]),
    ('{"function": {"name": "f"}, "parameters": {"a": 1}}', [FA]),
    ('{"name": "g"}', [G]),
    ('{"name": "g", "parameters": null}', [G]),
    ('{"parameters": None, "name": "g"}', [G]),
    ('{"function": {"name": "g"}}', [G]),
    ('{"name": "g", "parameters": {}}', [G]),
    ('{"na\\u006de": "\\x66", "parameters": {"a": 1}}', [FA]),
    ('{"name": "f", "parameters": " {\\"a\\": 1} "}', [FA]),
    ("{'arguments': '{\"a\": 1}', 'name': 'f'}", [FA]),
    (
        '{"name": "f", "parameters": "{\\"a\\": \\"\\\\ud83d\\\\ude00\\n\\"}"}',
        [("f", '{"a":"😀\\n"}')],
    ),
    ('{"name": "f", "parameters": "{\\"a\\": 1} x"} y', [FA, 'x"} y']),
    ('{"name": "f", "parameters": "{\\"a\\"\\" 1}"} y', [("f", '{"a":null}'), '\\" 1}"} y']),
    ('{"name": "f", "parameters": "{\\"a\\": 1"} y', [FA, '"} y']),
    (f"{OBJECT}{OBJECT}", [FA, FA]),
    (f"{OBJECT}; {OBJECT} , {OBJECT}\n\n{OBJECT}\n", [FA, FA, FA, FA]),
    (f"[{OBJECT},\n{OBJECT}]", [FA, FA]),
    (f"[ {OBJECT}, g()] tail", [FA, G, " tail"]),
    (f"Now {OBJECT}, then {OBJECT}.", ["Now ", FA, ", then ", FA, "."]),
    (f'[{OBJECT}, {{"x": 1}}]', [FA, ', {"x": 1}]']),
    (OBJECT[:-1], [FA]),
    (f"{OBJECT[:-1]}\n{OBJECT}", [FA, FA]),
    (OBJECT[:-2], [FA]),
    ('{"parameters": {"a": 1}, "name": "f"', [FA]),
    ('{"name": "f", "parameters": {"a": 1}, x y} z', [FA, "y} z"]),
    ('{"name": "f", "parameters": {"a": [1 2]}}', [("f", '{"a":[1]}'), "2]}}"]),
    *contents(
        '{"name": "h", "parameters": {}}',
        '{"name": "patch", "parameters": {}}',
        '{"name": "John", "age": 3}',
        '{"x": 1, "name": "f"}',
        '{"type": "object", "name": "f"}',
        '{"name": f, "parameters": {}}',
        '{"name": "f", "name": "g"}',
        '{"name": "f", "function": 1}',
        '{"name": "f", "parameters": [1]}',
        '{"name": "f", "parameters": nil}',
        '{"name": "f", "parameters": "x"}',
        '{"name": "f", "parameters": ""}',
        '{"name": "f", "parameters": "\\u007d"}',
        '{"name": "f", "parameters"= {}}',
        '{"parameters": {}, "arguments": {}, "name": "f"}',
        '{"parameters": {"a": 1}}',
        '{"parameters": {"a" 1}, "name": "f"}',
        '{"function": {"function": {}, "name": "f"}}',
        '{"id": ]',
        '{"name": "f"',
        '{"name": "f", "parameters":',
        '{"name": "f", "parameters": nul',
        "{} {{}} [{}] [{, {name: 1}",
    ),
    ('{"name": {"name": "g"}', ['{"name": ', G]),
    ('{"name": "John"} [g()]', ['{"name": "John"} ', G]),
]
BLOCKS: list[tuple[str, Output]] = [
    (f"{START}[f(a=1), g()]{END}", [FA, G]),
    (f"{START} {OBJECT}; {OBJECT}\n{END}", [FA, FA]),
    (f"{START}f(a=1)", [FA]),
    (f"{START}\nf(a=1)\ng();f(a=1), g(){END}", [FA, G, FA, G]),
    (f"{START}f(a=1{END}", [FA]),
    (f'{START}f(a="x{END}" y', [("f", '{"a":"x"}'), '" y']),
    (f"{START}f(a=1){END}g()", [FA, "g()"]),
    (f"Hm {START}f(a=1){END} {START}g(){END}\n{START}g() ok", ["Hm ", FA, G, G, " ok"]),
    (f"{START}f(a=1)\n{START}g(){END}", [FA, G]),
    (f"{START}{OBJECT}{END}\nSo.{START}{END}", [FA, "\nSo."]),
    (f"{START}patch\n*** Begin\n [g()]\n{END}\n", [("patch", "*** Begin\n [g()]\n")]),
    (f"a{START}patch\n{{{END}b{START}patch\n\n", ["a", ("patch", "{"), "b", ("patch", "\n")]),
    (f"{START}patch\none{START}patch\ntwo", [("patch", "one"), ("patch", "two")]),
    (f"{START}ge\nx{END}{START}get-weather.v2(){END}", [("ge", "x"), ("get-weather.v2", "{}")]),
    (f"{START}patch{END}", [("patch", "")]),
    (f"{START}patch", [("patch", "")]),
    (f"{START}patch\n", [("patch", "")]),
    (f"[f(a=1)]\n{START}patch\nx{END}; {OBJECT}", [FA, ("patch", "x"), FA]),
    (f"{END}{START}{END}x{END}", ["x"]),
    (f"{END}f(a=1)", [FA]),
    (f"{END}f(a=1);g()", [FA, G]),
    (f"[f(a=1)]\n{START} {END} ", [FA]),
    (f"[f(a=1)]\n{START} {END} x", [FA, "\n  x"]),
    (f"[f(a=1), {END}g()]", [FA, ", g()]"]),
    (f"[f(a=1), {START}g()]", [FA, G, "]"]),
    (f"[{END}f(a=1)]", ["[f(a=1)]"]),
    ("<|python_<|python_|><", ["<|python_<|python_|><"]),
    (f"<|python_x{START}g(){END}", ["<|python_x", G]),
]
# What is no call in a block: content, or code where it can be run.
NO_CALLS = [
    f"{START}print(f(a=1))\n{END}",
    f"{START} x = [g]{END} y",
    f"{START}{{'x': 1}}",
    f"{START}patch {END}",
    f"{START}patched\nx{END}",
    f"{START}pat{END}",
    f"{START}g{END}",
    f"{START}[f{START}",
    f"{START}{OBJECT[:20]}{END}",
]
CORPUS = PYTHONIC + OBJECTS + BLOCKS
TEXTS = [*(text for text, _ in CORPUS), *NO_CALLS]


def label(value: object) -> str:
    return str(value).replace(START, "<").replace(END, ">")[:60]


HEAD = '{"type": "function", "name": "f", "parameters": '
FA_SPACED = ("f", '{"a": 1}')
VERBATIM = '{ "\\u00e9é\\n" :\n[1.50E+2 ,{},[ ], null] }'
ENFORCED: list[tuple[str, Output]] = [
    (HEAD + '{"a": 1}}', [FA_SPACED]),
    (f'{HEAD}{{"a": 1}} }}\n{HEAD}{{}}}}', [FA_SPACED, ("f", "{}")]),
    (f'Hm. {HEAD}{{"a": 1}}}};{HEAD}{{"a": 1}}}} so', ["Hm. ", FA_SPACED, FA_SPACED, " so"]),
    (f"{HEAD}{VERBATIM}}}", [("f", VERBATIM)]),
    (f"{HEAD}\n {{}}\n }}", [("f", "{}")]),
    (f'{HEAD}{{"a": "{END}\\"{START}<|py"}}}}', [("f", f'{{"a": "{END}\\"{START}<|py"}}')]),
    (f"{START}patch\n{OBJECT}{START} {END}\n", [("patch", f"{OBJECT}{START} ")]),
    (f"{START}ge\n{END}\n{START}patch\n", [("ge", ""), ("patch", "")]),
    (f"{START}patch{END}", ["patch"]),
    (f"{HEAD}{END}x", [HEAD + "x"]),
    (f'{HEAD[:5]}{HEAD}{{"a": 1}}}}', [HEAD[:5], FA_SPACED]),
    (f'{HEAD}{{"a": 1}}}}\n{START}x', [FA_SPACED, "\nx"]),
    (f'{START}pat{HEAD}{{"a": 1}}}}{END} ', ["pat", FA_SPACED]),
    (f'{HEAD}{{"a": 1}}}}\n{START}{HEAD}{{"a": 1}}}}{END}', [FA_SPACED, FA_SPACED]),
    (HEAD + '{"a": 1', [FA_SPACED]),
    (HEAD + '{"a": 1 ,\n"b', [("f", '{"a": 1 ,\n"b":null}')]),
    (HEAD + '{"a": 1, "b" : [1, ', [("f", '{"a": 1, "b" : [1]}')]),
    (HEAD + '{"a": 1,} x', [FA_SPACED, "} x"]),
    (HEAD + "{'a': 1}}", [("f", "{}"), "'a': 1}}"]),
    (HEAD + '{"a": True}}', [("f", '{"a":null}'), "True}}"]),
    (HEAD + '{"a": +1}}', [("f", '{"a":null}'), "+1}}"]),
    (HEAD + '{"a": "x\ny"}}', [("f", '{"a": "x"}'), '\ny"}}']),
    (HEAD + '{"a": "x\\q"}}', [("f", '{"a": "x\\\\"}'), 'q"}}']),
    (HEAD + '{"a": "x\\u00', [("f", '{"a": "x\\\\u00"}')]),
    (HEAD + '{"a": tru', [("f", '{"a":null}'), "tru"]),
    (HEAD + '{"a" 1}}', [("f", '{"a":null}'), "1}}"]),
    (HEAD + '{"a": 1} x', [FA_SPACED, "x"]),
    (f'{HEAD}{{"a": {"[" * 128}', [("f", f'{{"a": {"[" * 127}{"]" * 127}}}'), "["]),
    ("[f(a=1)] f(a=1)", [FA, " f(a=1)"]),
    ("so [ f (a=1), f(a=1)]!", ["so ", FA, FA, "!"]),
    *contents(
        "f(a=1)",
        "[f.call(a=1)]",
        "[h(a=1)]",
        OBJECT,
        HEAD,
        HEAD + "[1]}",
        HEAD.replace('"f"', '"h"') + "{}}",
        HEAD.replace('"f"', '"patch"') + "{}}",
        HEAD.replace(": ", ":") + "{}}",
    ),
]
