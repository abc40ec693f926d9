"""What every endpoint needs, made once by `create_app`."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from caravan.api.constraint import GrammarDesk
from caravan.api.images import ImageLoader
from caravan.api.validation import shown
from caravan.config import ApiConfig
from caravan.engine.handle import Engine
from caravan.errors import EngineDead, ModelNotFound, StillLoading
from caravan.messages import Progress, Ready
from caravan.metrics import Metrics
from caravan.text.defaults import GenerationDefaults
from caravan.text.tokenizer import Tokenizer
from caravan.text.tool_prompt import Marker

LOADING_RETRY_S = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The server behind the endpoints."""

    engine: Engine
    tokenizer: Tokenizer
    defaults: GenerationDefaults
    config: ApiConfig
    images: ImageLoader
    model_name: str
    metrics: Metrics
    started: int  # Unix time in seconds
    grammars: GrammarDesk

    @property
    def marker_ids(self) -> frozenset[int]:
        """The special tokens around a custom tool's call; empty if the tokenizer lacks one."""
        ids = [self.tokenizer.special_ids.get(marker.value) for marker in Marker]
        return frozenset() if None in ids else frozenset(id_ for id_ in ids if id_ is not None)

    def loaded(self) -> Ready:
        """Facts about the model. Raises EngineDead, or StillLoading while there is none."""
        if not self.engine.alive:
            raise EngineDead("The engine has ended; the server is about to exit.")
        if self.engine.ready is None:
            raise StillLoading(
                f"The model is still loading ({phase(self.engine.loading)}). "
                f"Try again in {LOADING_RETRY_S} seconds.",
                retry_after_s=LOADING_RETRY_S,
            )
        return self.engine.ready

    def require_model(self, name: str | None, param: str | None = "model") -> None:
        """Raises ModelNotFound unless `name` is the model served; None is whatever is served."""
        if name is not None and name != self.model_name:
            raise ModelNotFound(
                f"The model `{shown(name)}` does not exist; this server serves "
                f"`{self.model_name}`.",
                param=param,
            )


def service_of(request: Request) -> Service:
    """The service of the app that got this request."""
    service = request.app.state.service
    assert isinstance(service, Service), type(service)
    return service


def phase(progress: Progress | None) -> str:
    """How far the start-up is, in words.

    >>> phase(Progress("weights", 3, 12, "tensors"))
    'weights: 3 of 12 tensors'
    """
    if progress is None:
        return "starting"
    return f"{progress.phase}: {progress.done} of {progress.total} {progress.unit}"
