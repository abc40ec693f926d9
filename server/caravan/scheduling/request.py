"""One request: its tokens, how far they are computed, and when it ends."""

from __future__ import annotations

from dataclasses import dataclass

from caravan.messages import Admission, FinishReason, Generate, Sampling
from caravan.scheduling.page_tables import PageTables


@dataclass(slots=True, eq=False)
class Request:
    """A request that waits or runs. Its place in the scheduler's queues is its order of arrival."""

    rid: int
    tokens: list[int]  # prompt and output
    num_prompt: int
    sampling: Sampling
    tables: PageTables

    @classmethod
    def arrived(cls, generate: Generate, tables: PageTables) -> Request:
        """A request with its prompt, nothing of which is computed."""
        prompt = list(generate.prompt)
        return cls(generate.rid, prompt, len(prompt), generate.sampling, tables)

    @property
    def num_computed(self) -> int:
        """Tokens whose keys and values exist once the steps planned so far have run."""
        return self.tables.num_tokens

    @property
    def num_missing(self) -> int:
        """Tokens yet to compute; 0 while the next token is being drawn."""
        return len(self.tokens) - self.tables.num_tokens

    def admission(self) -> Admission:
        """What the worker is told when the request enters it."""
        return Admission(self.rid, list(self.tokens), self.num_prompt, self.sampling)

    def append(self, token: int) -> FinishReason | None:
        """Appends a drawn token; says whether, and why, the request ends with it.

        The sampler draws no stop token before `min_tokens`, so every stop token ends the request.
        """
        self.tokens.append(token)
        if token in self.sampling.stop_token_ids:
            return "stop"
        if len(self.tokens) - self.num_prompt >= self.sampling.max_tokens:
            return "length"
        return None
