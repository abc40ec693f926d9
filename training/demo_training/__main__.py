"""python -m demo_training DIRECTORY [PHASE]: makes the demo model, or goes on with it.

The phases are vision and joint. Without PHASE both run, one after the other, and the checkpoint is
written at the end. Under torchrun, processes with a thread each share the work of a phase:

    torchrun --nproc-per-node 2 -m demo_training DIRECTORY joint --threads 1
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from random import Random

import torch
import torch.distributed as dist

from demo_training.export import export
from demo_training.training import JOINT, PHASES, Trainer, rank
from demo_training.vocabulary import write_tokenizer


def main() -> None:
    """Parses the command line and trains."""
    parser = argparse.ArgumentParser(prog="demo_training", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("phase", nargs="?", choices=[*PHASES, "export"])
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    directory: Path = arguments.directory
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / "tokenizer.json").exists():
        write_tokenizer(directory, Random(0))
    for name in [arguments.phase] if arguments.phase else [*PHASES, "export"]:
        if name == "export":
            export(directory)
            continue
        trainer = Trainer(directory, PHASES[name])
        if name == JOINT.name:
            trainer.start_from_vision()
        trainer.run(_report)


def _report(line: str) -> None:
    if not rank():
        print(line, flush=True)


if __name__ == "__main__":
    main()
