"""Fields that chat and completions share: how tokens are drawn, and when they end."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from caravan.api.schema.base import INT64_MAX, INT64_MIN, Body, Items, TokenId, refuse
from caravan.api.schema.output import StructuredOutputs

MAX_CHOICES = 128  # prompts * n of one request
MAX_STOPS = 16  # OpenAI's 4 are too few for tasks of lm-eval
MAX_STOP_CHARACTERS = 256  # of each; every choice keeps an automaton of all of them
MAX_BIASED_TOKENS = 1024
MAX_STOP_TOKENS = 1024
MAX_PRIORITY = 1000
MAX_LABEL = 512  # characters of what a client calls its users and caches

# A penalty beyond these bounds makes infinities of ordinary fp32 logits.
REPETITION_PENALTY_MIN, REPETITION_PENALTY_MAX = 0.01, 100.0

Label = Annotated[str, Field(min_length=1, max_length=MAX_LABEL)]
StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]
_StopList = Annotated[list[StopString], Field(max_length=MAX_STOPS)]


def _listed(value: object) -> object:
    if not isinstance(value, (str, list)):
        refuse("invalid_type", "must be a string or a list of strings")
    return [value] if isinstance(value, str) else value


def _token_keys(biases: dict[str, float]) -> dict[str, float]:
    """JSON has no integer keys: each must be the one way to write its token id."""
    for key in biases:
        if not (key.isascii() and key.isdigit() and len(key) <= 10 and str(int(key)) == key):
            refuse("invalid_value", "is not a token id", key)
    return biases


class StreamOptions(Body):
    """Options of a streamed answer."""

    include_usage: bool = False
    continuous_usage_stats: bool = Field(
        default=False, description="Every chunk has the usage so far."
    )
    include_obfuscation: bool = Field(
        default=False, description="Pads events, so that their lengths do not tell their texts."
    )


_DEFAULT = "By default the model's own."


class SamplingBody(Body):
    """Fields that chat and completions share; None is the model's own default."""

    model: str
    max_tokens: int | None = Field(None, ge=0, le=INT64_MAX)
    min_tokens: int = Field(
        0, ge=0, le=INT64_MAX, description="Until so many, neither a stop token nor a stop string."
    )
    n: int = Field(1, ge=1, le=MAX_CHOICES)
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2, description=_DEFAULT)
    top_p: float | None = Field(None, gt=0, le=1, description=_DEFAULT)
    top_k: int | None = Field(None, ge=-1, description="0 and -1: all tokens. " + _DEFAULT)
    min_p: float = Field(
        0.0, ge=0, le=1, description="A token's least probability, as a share of the likeliest's."
    )
    seed: int | None = Field(
        None, ge=INT64_MIN, le=INT64_MAX, description="Choice i is drawn with seed + i."
    )
    repetition_penalty: float = Field(
        1.0,
        ge=REPETITION_PENALTY_MIN,
        le=REPETITION_PENALTY_MAX,
        description="Divides the logits of tokens in prompt and output.",
    )
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    logit_bias: Annotated[
        dict[str, Annotated[float, Field(ge=-100, le=100)]],
        Field(
            max_length=MAX_BIASED_TOKENS,
            json_schema_extra={"propertyNames": {"pattern": "^(0|[1-9][0-9]{0,9})$"}},
        ),
        AfterValidator(_token_keys),
    ] = {}
    stop: Annotated[
        Items[StopString],
        Field(max_length=MAX_STOPS),
        BeforeValidator(_listed, json_schema_input_type=StopString | _StopList),
    ] = []
    stop_token_ids: Annotated[Items[TokenId], Field(max_length=MAX_STOP_TOKENS)] = []
    include_stop_str_in_output: bool = Field(
        False, description="The text ends with the stop string that was found, not before it."
    )
    ignore_eos: bool = Field(False, description="The model's own stop tokens end nothing.")
    skip_special_tokens: bool = Field(True, description="False: their names are in the text.")
    structured_outputs: StructuredOutputs | None = None
    prompt_logprobs: int | None = Field(
        None,
        ge=0,
        le=20,
        description="Of so many of the likeliest tokens, and of the prompt's own.",
    )
    truncate_prompt_tokens: int | None = Field(
        None, ge=1, le=INT64_MAX, description="The prompt's last tokens, so many at most."
    )
    return_token_ids: bool = Field(False, description="The answer has the tokens' ids, too.")
    priority: int = Field(0, ge=0, le=MAX_PRIORITY, description="Lower ones go first.")
    user: Label | None = None
    cache_salt: Label | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.stream_options is not None and not self.stream:
            refuse("invalid_value", "is only allowed when `stream` is true", "stream_options")
        if self.prompt_logprobs is not None and self.stream:
            refuse("invalid_value", "is only allowed when `stream` is false", "prompt_logprobs")
        return self


ServiceTier = Literal["auto", "default", "flex", "scale", "priority", "fast"]
