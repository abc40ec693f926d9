"""python tests/eval/run.py: examines a server, the demo model by default.

--base-url URL   a running server, instead of one that is started for it
--model DIR      the model that is started
--questions N    of each skill
--faults         the table of deliberate faults, in this process
--results FILE   writes the accuracies as JSON, with the command, versions and date
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

import openai
import torch

_ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(_ROOT / "tests"), str(_ROOT / "training")]

import caravan
from caravan.model.source import DEMO
from eval.asking import Answered, ask_all
from eval.faults import FAULTS
from eval.in_process_exam import accuracy
from eval.questions import paper
from eval.report import by_skill, fault_table, missed, skill_table, wrong_answers
from system.running_server import RunningServer


def main() -> int:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-url")
    parser.add_argument("--model", type=Path, default=DEMO)
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--faults", action="store_true")
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args()
    if arguments.faults:
        return _examine_faults(arguments.model, arguments.questions, arguments.results)
    if arguments.base_url:
        answered = _ask(arguments.base_url, arguments.questions)
    else:
        with RunningServer(str(arguments.model)) as server:
            answered = _ask(f"{server.until_ready().url}/v1", arguments.questions)
    found = by_skill(answered)
    sys.stdout.write(f"{wrong_answers(answered)}\n\n{skill_table(found)}\n")
    _write(arguments.results, {"skills": found})
    return 1 if missed(found) else 0


def _ask(base_url: str, per_skill: int) -> list[Answered]:
    with openai.OpenAI(base_url=base_url, api_key="none", timeout=600) as client:
        return ask_all(client, paper(per_skill))


def _examine_faults(model: Path, per_skill: int, results: Path | None) -> int:
    questions = paper(per_skill)
    by_fault: dict[str, Mapping[str, float]] = {}
    for fault in FAULTS:
        by_fault[fault.name] = accuracy(fault, model, questions)
        mean = sum(by_fault[fault.name].values()) / len(by_fault[fault.name])
        sys.stderr.write(f"{fault.name}: {mean:.1%}\n")
    sys.stdout.write(f"{fault_table(by_fault)}\n")
    _write(results, {"faults": by_fault})
    return 0


def _write(path: Path | None, found: Mapping[str, object]) -> None:
    if path is None:
        return
    made = {
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "versions": {
            "caravan": caravan.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**made, **found}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
