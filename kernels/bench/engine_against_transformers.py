"""The engine against transformers' own generation, run in pairs on the same shapes.

    python kernels/bench/engine_against_transformers.py kernels/bench/models/llama4-1.7b

Both have random weights of the model's shapes, greedy decoding and no end token. transformers runs
one request at a time, as its `generate` does for one user; it computes every expert for every
token, so it is a floor for what a server has to beat, not a rival engine.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path
from statistics import median

from caravan.worker import environment

environment.prepare()

import torch
from transformers import Llama4ForCausalLM, Llama4TextConfig

from caravan.config import EngineConfig, ModelConfig
from caravan.engine.engine import Engine
from caravan.messages import Generate, Sampling
from caravan.scheduling.scheduler import Scheduler
from caravan.worker.runner import Runner


def ours(runner: Runner, prompt: list[int], output_len: int) -> tuple[float, float]:
    """Seconds to the first token, and per token after it."""
    engine = Engine(runner, Scheduler(runner.layout, runner.num_pages, EngineConfig().scheduler))
    sampling = Sampling(max_tokens=output_len, temperature=0.0)
    engine.add(Generate(time.monotonic_ns(), prompt, sampling))
    started = time.perf_counter()
    engine.step()
    first = time.perf_counter()
    while engine.has_work:
        engine.step()
    return first - started, (time.perf_counter() - first) / (output_len - 1)


@torch.inference_mode()
def theirs(model: Llama4ForCausalLM, prompt: list[int], output_len: int) -> tuple[float, float]:
    """The same of transformers."""
    started = time.perf_counter()
    output = model(input_ids=torch.tensor([prompt]), use_cache=True, logits_to_keep=1)
    first = time.perf_counter()
    for _ in range(output_len - 1):
        token = output.logits[:, -1:].argmax(-1)
        output = model(input_ids=token, past_key_values=output.past_key_values, use_cache=True)
    return first - started, (time.perf_counter() - first) / (output_len - 1)


def main() -> None:
    """Prints medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path, help="a directory with config.json")
    parser.add_argument("--input-len", type=int, default=256)
    parser.add_argument("--output-len", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    config = EngineConfig(model=ModelConfig(load_format="dummy", max_model_len=8192))
    runner = Runner(config, arguments.model, lambda progress: None)
    text = json.loads((arguments.model / "config.json").read_text())
    with torch.device("meta"):
        model = Llama4ForCausalLM(Llama4TextConfig(**text)).to(torch.bfloat16)
    model = model.to_empty(device="cpu").eval()
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter.data[:1], -0.03, 0.03)
        parameter.data.copy_(parameter.data[:1].expand_as(parameter))
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)  # its buffers were meta
    times = []
    for i in range(arguments.repeats):
        source = random.Random(i)
        prompt = [source.randrange(runner.vocab_size) for _ in range(arguments.input_len)]
        pair = (
            ours(runner, prompt, arguments.output_len),
            theirs(model, prompt, arguments.output_len),
        )
        times.append(pair)
        print(*(f"TTFT {a:.3f} s, TPOT {1e3 * b:.1f} ms;" for a, b in pair), flush=True)
    for name, index in (("TTFT", 0), ("TPOT", 1)):
        a, b = (median(pair[who][index] for pair in times) for who in (0, 1))
        ratio = median(pair[1][index] / pair[0][index] for pair in times)
        print(f"{name}: ours {a:.3f} s, transformers {b:.3f} s, ratio {ratio:.1f}")
    print("torch", torch.__version__, "command", *sys.argv)


if __name__ == "__main__":
    main()
