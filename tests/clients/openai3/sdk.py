"""What all checks of OpenAI's Python SDK use: one client, and what most of them ask it."""

from __future__ import annotations

from typing import Any

from openai import OpenAI
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from clients.checklist import KEY, MODEL, TIMEOUT_S, URL, said

client = OpenAI(base_url=URL + "/v1", api_key=KEY, max_retries=0, timeout=TIMEOUT_S)


class Weather(BaseModel):
    city: str
    temperature_c: int


def chat(text: str, **fields: Any) -> ChatCompletion:
    answer = client.chat.completions.create(model=MODEL, messages=said(text), **fields)
    assert isinstance(answer, ChatCompletion)
    return answer
