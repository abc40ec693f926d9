"""Simon Willison's `llm`, on the command line."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from clients.checklist import DEMO_URL, KEY, MODEL, SAMPLES, TIMEOUT_S, URL, feature, run, same

HOME = tempfile.TemporaryDirectory(prefix="llm-")  # gone when the checks are
FUNCTIONS = """
def get_weather(city: str) -> str:
    "The weather in a city."
    return f"sunny in {city}"
"""


def configure() -> None:
    """Writes llm's own files: its models, and the key that they use."""
    scripted = {"model_name": MODEL, "api_base": URL + "/v1", "api_key_name": "caravan"}
    abilities = {"vision": True, "supports_schema": True, "supports_tools": True}
    models = [
        {"model_id": "scripted", **scripted, **abilities},
        {"model_id": "completing", **scripted, "completion": True},
        {"model_id": "stranger", **scripted, "api_key_name": "wrong"},
        {"model_id": "nobody", **scripted, "model_name": "x"},
        {
            **scripted,
            "model_id": "demo",
            "model_name": "caravan-demo",
            "api_base": DEMO_URL + "/v1",
        },
    ]
    home = Path(HOME.name)
    (home / "extra-openai-models.yaml").write_text(json.dumps(models))  # which is YAML, too
    (home / "keys.json").write_text(json.dumps({"caravan": KEY, "wrong": "wrong"}))


def llm(prompt: str, *flags: str, model: str = "scripted", status: int = 0) -> str:
    """What it prints; with another status than 0, its complaint."""
    process = subprocess.run(
        [str(Path(sys.executable).with_name("llm")), "prompt", "-m", model, prompt, *flags],
        env={**os.environ, "LLM_USER_PATH": HOME.name},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    same((process.returncode, process.stderr if not status else ""), (status, ""))
    return (process.stderr if status else process.stdout).strip()


@feature("chat")
def check_chat() -> None:
    same(llm("Grüße 👋", "--no-stream"), "You said: Grüße 👋")
    assert llm("Grüße 👋", "-o", "max_tokens", "20", model="demo"), "the demo is silent"


@feature("roles")
def check_roles() -> None:
    same(llm("Show me the system message.", "-s", "Be kind."), "I was told: Be kind.")


@feature("stream")
def check_stream() -> None:
    same(llm("Grüße 👋"), "You said: Grüße 👋")


@feature("stop")
def check_stop() -> None:
    same(llm("count", "-o", "stop", " four"), "one two three")
    same(llm("count", "-o", "max_tokens", "7"), "one two")


@feature("seed")
def check_seed() -> None:
    same(llm("The seed?", "-o", "seed", "7"), "The seed is 7.")


@feature("image")
def check_image() -> None:
    picture = Path(HOME.name) / "picture.png"
    picture.write_bytes(base64.b64decode(SAMPLES["picture"].partition(",")[2]))
    same(llm("What is this?", "-a", str(picture)), "Pictures: 1.")


@feature("tools_results")
def check_tools_results() -> None:
    for flags in ([], ["--no-stream"]):
        answer = llm("How is the weather?", "--functions", FUNCTIONS, *flags)
        same(answer, "The result is sunny in Paris.")


@feature("json_object")
def check_json_object() -> None:
    answer = llm("Answer in json", "-o", "json_object", "1")
    same(json.loads(answer), {"city": "Paris", "temperature_c": 21})


@feature("json_schema")
def check_json_schema() -> None:
    answer = llm("How warm is it?", "--schema", json.dumps(SAMPLES["weather_schema"]))
    same(json.loads(answer), {"city": "Paris", "temperature_c": 21})


@feature("completions")
def check_completions() -> None:
    same(llm("count", "--no-stream", model="completing"), "one two three fo")


@feature("completions_stream")
def check_completions_stream() -> None:
    same(llm("count", model="completing"), "one two three fo")


@feature("error_model")
def check_error_model() -> None:
    assert "does not exist" in llm("Hello", model="nobody", status=1)


@feature("error_key")
def check_error_key() -> None:
    assert "API key is not valid" in llm("Hello", model="stranger", status=1)


@feature("error_stream")
def check_error_stream() -> None:
    assert "The engine has ended." in llm("die", status=1)


if __name__ == "__main__":
    configure()
    run()
