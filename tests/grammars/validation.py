"""The oracle: the `jsonschema` package, with exact numbers and every format checked."""

from __future__ import annotations

import decimal
import json
import re
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import jsonschema

decimal.getcontext().prec = 5000  # or the remainder of a long number has no room

_DURATION = re.compile(r"P(?=.)(\d+Y)?(\d+M)?(\d+D)?(\d+W)?(T(?=.)(\d+H)?(\d+M)?(\d+S)?)?")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")

formats = jsonschema.FormatChecker(["email", "ipv4", "ipv6", "uuid"])


def _check(name: str) -> Callable[[Callable[[str], object]], None]:
    def register(check: Callable[[str], object]) -> None:
        formats.checks(name, ValueError)(
            lambda value: not isinstance(value, str) or bool(check(value))
        )

    return register


@_check("date")
def _date(value: str) -> object:
    return date.fromisoformat(value) and len(value) == len("2000-01-01")


@_check("date-time")
def _date_time(value: str) -> object:
    fraction_cut = re.sub(r"(\.\d{6})\d+", r"\1", value)
    return datetime.fromisoformat(fraction_cut).tzinfo and "T" in value


@_check("time")
def _time(value: str) -> object:
    return _is_date_time("2000-01-01T" + value)


def _is_date_time(value: str) -> bool:
    return bool(formats.conforms(value, "date-time"))


@_check("duration")
def _duration(value: str) -> object:
    return _DURATION.fullmatch(value)


@_check("hostname")
def _hostname(value: str) -> object:
    return all(_LABEL.fullmatch(label) for label in value.split("."))


@_check("uri")
def _uri(value: str) -> object:
    return urlsplit(value).scheme and not re.search(r"[\s<>\\^`{|}\"]", value)


def parse(text: str) -> Any:
    return json.loads(text, parse_float=Decimal)


def problems(schema: Any, text: str) -> list[str]:
    """What is wrong with an instance: nothing, if it is valid."""
    exact = json.loads(json.dumps(schema), parse_float=Decimal)
    kind = jsonschema.validators.validator_for(exact, jsonschema.Draft202012Validator)
    validator = kind(exact, format_checker=formats)
    return [error.message for error in validator.iter_errors(parse(text))]
