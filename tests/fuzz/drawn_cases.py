"""schemathesis, set up the same way for every description."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.generation.hypothesis.builder import (
    HypothesisTestConfig,
    HypothesisTestMode,
    create_test,
)
from schemathesis.schemas import APIOperation, BaseSchema

from fuzz.played import PlayedApp, fuzz_factor

COVERAGE, FUZZING = HypothesisTestMode.COVERAGE, HypothesisTestMode.FUZZING
SEED = 1

Case = schemathesis.Case[Any]


def prepared(schema: BaseSchema, app: PlayedApp) -> BaseSchema:
    """Of a loaded description: its cases go to the app, and streams are read to their end."""
    schema.app = app
    schema.config.max_stream_events = 1 << 20
    # Words from the app's source would change the cases with every change of the source.
    schema.config.analysis.constants.enabled = False
    return schema


def send_all(
    operation: APIOperation[Any, Any, Any, Any],
    check: Callable[[Case], None],
    *,
    examples: int,
    modes: Sequence[HypothesisTestMode] = (COVERAGE, FUZZING),
) -> None:
    """Calls `check` with systematic cases and `examples` random ones; the same ones every time."""
    usual = fuzz_factor() == 1
    create_test(
        operation=operation,
        test_func=check,
        config=HypothesisTestConfig(
            project=operation.schema.config,
            modes=list(modes),
            settings=settings(
                max_examples=examples * fuzz_factor(),
                derandomize=usual,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
            seed=SEED if usual else None,
        ),
    )()


def config() -> SchemathesisConfig:
    """No file decides anything."""
    return SchemathesisConfig(seed=SEED if fuzz_factor() == 1 else None)
