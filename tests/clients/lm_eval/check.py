"""EleutherAI's evaluation harness, with tasks and a tokenizer that are local files."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from clients.checklist import DEMO_URL, KEY, feature, run, same

HERE = Path(__file__).parent
MODEL = "caravan-demo"
TOKENIZER = os.environ.get("CARAVAN_TOKENIZER", "")
TIMEOUT_S = 240
STOPS = ["q", "zz"]  # as in tasks/caravan_words.yaml
MANY_STOPS = ["q", "zz", "xj", "jx", "vk", "kv"]  # as in tasks/caravan_stops.yaml


def evaluate(task: str, kind: str, path: str, *flags: str, **arguments: Any) -> list[Any]:
    """What the harness logs about each item of a task."""
    options = {"model": MODEL, "base_url": f"{DEMO_URL}/v1/{path}", "max_retries": 1, **arguments}
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, "-m", "lm_eval", "run", "--model", kind, "--tasks", task]
        command += ["--include_path", "tasks", "--output_path", output, "--log_samples"]
        command += ["--model_args", ",".join(f"{name}={value}" for name, value in options.items())]
        subprocess.run(
            [*command, *flags],
            cwd=HERE,
            env={**os.environ, "OPENAI_API_KEY": KEY, "HF_HOME": output},
            stdout=sys.stderr,
            timeout=TIMEOUT_S,
            check=True,
        )
        (samples,) = Path(output).rglob(f"samples_{task}_*.jsonl")
        return [json.loads(line) for line in samples.read_text().splitlines()]


def complete(path: str, **fields: Any) -> Any:
    """The first choice, without any client."""
    request = urllib.request.Request(
        f"{DEMO_URL}/v1/{path}",
        json.dumps({"model": MODEL, **fields}).encode(),
        {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        return json.load(response)["choices"][0]


def tokens(text: str) -> list[int]:
    """Of a text alone, by the server."""
    request = urllib.request.Request(
        f"{DEMO_URL}/tokenize",
        json.dumps({"model": MODEL, "prompt": text}).encode(),
        {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        found: list[int] = json.load(response)["tokens"]
        return found[1:]  # the first begins the text


def forced(context: list[int], continuation: list[int]) -> float:
    """Log-probability of a continuation, each of its tokens drawn because nothing else can be."""
    total = 0.0
    for position, token in enumerate(continuation):
        choice = complete(
            "completions",
            prompt=context + continuation[:position],
            max_tokens=1,
            temperature=0,
            logprobs=0,
            logit_bias={token: 100},
        )
        total += choice["logprobs"]["token_logprobs"][0]
    return total


@feature("eval_loglikelihood")
def check_loglikelihood() -> None:
    samples = evaluate(
        "caravan_choices",
        "local-completions",
        "completions",
        tokenizer_backend="huggingface",
        tokenizer=TOKENIZER,
    )
    same(len(samples), 3)
    for sample in samples:
        values = [float(response[0][0]) for response in sample["resps"]]
        assert all(math.isfinite(value) and value < 0 for value in values), values
        best = sample["doc"]["choices"][values.index(max(values))]
        same(sample["acc"], float(best == sample["doc"]["choices"][sample["doc"]["answer"]]))
    (first,) = (s for s in samples if s["doc_id"] == 0)
    for response, choice in zip(first["resps"], first["doc"]["choices"], strict=True):
        context = tokens(first["doc"]["question"])
        whole = tokens(f"{first['doc']['question']} {choice}")
        same(whole[: len(context)], context)
        expected = forced(context, whole[len(context) :])
        assert math.isclose(float(response[0][0]), expected, abs_tol=1e-3), (response, expected)


@feature("eval_completions")
def check_completions() -> None:
    samples = evaluate(
        "caravan_words", "local-completions", "completions", tokenizer_backend="none"
    )
    for sample in samples:
        choice = complete(
            "completions",
            prompt=sample["doc"]["question"],
            max_tokens=24,
            temperature=0,
            stop=STOPS,
            seed=1234,
        )
        same(sample["resps"], [[choice["text"]]])


@feature("eval_stops")
def check_stops() -> None:
    samples = evaluate(
        "caravan_stops", "local-completions", "completions", tokenizer_backend="none"
    )
    for sample in samples:
        prompt = sample["doc"]["question"]
        whole = complete("completions", prompt=prompt, max_tokens=24, temperature=0)["text"]
        ends = [whole.index(stop) for stop in MANY_STOPS if stop in whole]
        same(sample["resps"], [[whole[: min(ends, default=None)]]])


@feature("eval_chat")
def check_chat() -> None:
    samples = evaluate(
        "caravan_words",
        "local-chat-completions",
        "chat/completions",
        "--apply_chat_template",
        num_concurrent=2,
    )
    for sample in samples:
        choice = complete(
            "chat/completions",
            messages=[{"role": "user", "content": sample["doc"]["question"]}],
            max_tokens=24,
            temperature=0,
            stop=STOPS,
            seed=1234,
        )
        same(sample["resps"], [[choice["message"]["content"]]])


if __name__ == "__main__":
    run()
