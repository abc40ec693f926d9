"""Choices as /v1/completions writes them: text, on request behind the prompt that it follows."""

from __future__ import annotations

from collections.abc import Sequence

from caravan.api.answer import Json
from caravan.api.choices import AskedPrompt, ListedToken, Piece
from caravan.api.logprobs import CompletionLogprobs, prompt_logprobs
from caravan.api.schema.completion import CompletionBody
from caravan.text.tokenizer import Tokenizer


class CompletionDialect:
    """Choices with text; a chunk looks like a small whole."""

    id_prefix = "cmpl-"
    object = "text_completion"
    chunk_object = "text_completion"

    def __init__(
        self,
        tokenizer: Tokenizer,
        body: CompletionBody,
        prompts: Sequence[AskedPrompt],
        shown_specials: frozenset[int],
    ) -> None:
        self._tokenizer = tokenizer
        self._body = body
        self._prompts = prompts
        self._shown_specials = shown_specials
        self.only_text = body.logprobs is None and not body.return_token_ids and not body.echo
        self._writers: dict[int, CompletionLogprobs | None] = {}  # of the choices that have begun

    def beside(self) -> Json:
        """Everything stands in the choices."""
        return {}

    def opening(self, index: int) -> None:
        """Text has no role to announce."""

    def chunk(self, piece: Piece) -> Json:
        """Text, the end, or both."""
        return self._choice(piece, listed_always=False)

    def whole(self, piece: Piece) -> Json:
        """All of the text."""
        return self._choice(piece, listed_always=True)

    def _choice(self, piece: Piece, *, listed_always: bool) -> Json:
        begins = piece.index not in self._writers
        if begins:
            self._writers[piece.index] = self._new_writer()
        writer = self._writers[piece.index]
        text, tokens = piece.text, piece.tokens
        fields: Json = {}
        if begins:
            prompt = self._prompts[piece.index // self._body.num_drawn]
            fields = self._of_prompt(prompt)
            if self._body.echo:
                text = self._tokenizer.decode(prompt.tokens) + text
                if writer:
                    tokens = [*_echoed(prompt), *tokens]
        if self._body.return_token_ids:
            fields["token_ids"] = piece.token_ids
        return {
            "index": piece.index,
            "text": text,
            "logprobs": writer.write(tokens) if writer and (tokens or listed_always) else None,
            "finish_reason": piece.finish,
            **fields,
        }

    def _new_writer(self) -> CompletionLogprobs | None:
        if self._body.logprobs is None:
            return None
        return CompletionLogprobs(self._tokenizer, self._body.logprobs, self._shown_specials)

    def _of_prompt(self, prompt: AskedPrompt) -> Json:
        fields: Json = {}
        if self._body.return_token_ids:
            fields["prompt_token_ids"] = prompt.tokens
        if self._body.prompt_logprobs is not None:
            listed = prompt.listed()
            fields["prompt_logprobs"] = prompt_logprobs(
                self._tokenizer, listed, self._body.prompt_logprobs
            )
        return fields


def _echoed(prompt: AskedPrompt) -> list[ListedToken]:
    """The tokens that the client sent: not the one that begins every prompt of text."""
    return prompt.listed(start=prompt.num_added)
