"""docs/api.md names every field that is obeyed, and every one that is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from caravan.api.schema.base import Body
from caravan.api.schema.chat import ChatBody
from caravan.api.schema.completion import CompletionBody
from caravan.api.schema.conversation import ContentPart, MessageItem

TEXT = (Path(__file__).parents[2] / "docs/api.md").read_text()


def told(*headings: str) -> set[str]:
    """The fields in the first columns under some headings."""
    parts = [TEXT.split(f"## {heading}\n")[1].split("\n## ")[0] for heading in headings]
    rows = [line.split("|")[1] for part in parts for line in part.splitlines() if "|" in line]
    return {name for row in rows for name in re.findall("`([a-z_]+)`", row)}


@pytest.mark.parametrize(
    ("body", "own"), [(ChatBody, "Chat only"), (CompletionBody, "Completions only")]
)
def test_every_obeyed_field_has_its_row(body: type[Body], own: str) -> None:
    shared = told("Chat and completions")
    assert body.names() <= shared | told(own)
    assert told(own) <= body.names()
    assert shared <= ChatBody.names() | CompletionBody.names()


@pytest.mark.parametrize("body", [ChatBody, CompletionBody, MessageItem, ContentPart])
def test_every_refused_field_is_named(body: type[Body]) -> None:
    refused = " ".join(part.split("\n\n")[0] for part in TEXT.split("\nRefused")[1:])
    assert set(body.refused) <= set(re.findall("`([a-z_]+)`", refused))
