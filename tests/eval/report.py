"""Accuracy by skill, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eval.asking import Answered
from eval.questions import SKILLS


def by_skill(answered: Sequence[Answered]) -> dict[str, float]:
    """The part of right answers of each skill."""
    right: dict[str, list[bool]] = {}
    for one in answered:
        right.setdefault(one.question.skill, []).append(one.right)
    return {skill: sum(found) / len(found) for skill, found in right.items()}


def missed(found: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Skills below their target: what was found, and the target."""
    return {
        skill: (share, SKILLS[skill][1])
        for skill, share in found.items()
        if share < SKILLS[skill][1]
    }


def skill_table(found: Mapping[str, float]) -> str:
    """Markdown: a line for each skill."""
    lines = ["| skill | right | target |", "|---|---|---|"]
    lines += [
        f"| {skill} | {share:.0%} | {SKILLS[skill][1]:.0%} |" for skill, share in found.items()
    ]
    return "\n".join(lines)


def fault_table(by_fault: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown: what each fault costs, in points over all skills, and where it costs the most."""
    sound = by_fault["none"]
    lines = ["| fault | all skills | costs most |", "|---|---|---|"]
    for fault, found in by_fault.items():
        mean = sum(found.values()) / len(found)
        costs = sorted(found, key=lambda skill: found[skill] - sound[skill])
        most = [
            f"{skill} {sound[skill]:.0%} → {found[skill]:.0%}"
            for skill in costs[:3]
            if found[skill] < sound[skill]
        ]
        lines.append(f"| {fault} | {mean:.0%} | {', '.join(most)} |")
    return "\n".join(lines)


def wrong_answers(answered: Sequence[Answered], limit: int = 3) -> str:
    """Some of what went wrong in each skill, for whoever looks for the reason."""
    shown: dict[str, list[str]] = {}
    for one in answered:
        if not one.right:
            asked = [p for p in one.question.dialogue.turns[-1].parts if isinstance(p, str)]
            got = one.text or str(one.calls)
            lines = shown.setdefault(one.question.skill, [])
            lines.append(
                f"  {' '.join(asked)[-120:]!r}\n    {one.question.expected.text!r}\n    {got!r}"
            )
    return "\n".join(
        f"{skill}: {len(lines)} wrong\n" + "\n".join(lines[:limit])
        for skill, lines in shown.items()
    )
