"""What the server serves and how it is: models, probes, metrics.

/health     is it alive: the engine's process runs and its heartbeat is young
/ready      does it take requests: loaded, not draining; else the error that a request would get
/metrics    for Prometheus
/version
"""

from __future__ import annotations

import msgspec
from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request
from starlette.responses import Response

import caravan
from caravan.api.answer import Json
from caravan.api.body import json_response
from caravan.api.edge import error_response
from caravan.api.service import Service, service_of
from caravan.errors import Draining, EngineDead, StillLoading

PROBE_METHODS = ["GET", "HEAD"]

router = APIRouter()


@router.get("/v1/models")
async def list_models(request: Request) -> Response:
    """The one model. Raises StillLoading."""
    return json_response({"object": "list", "data": [_model(service_of(request))]})


@router.get("/v1/models/{model_id:path}")
async def retrieve_model(request: Request, model_id: str) -> Response:
    """A model by its id, which may have slashes. Raises ModelNotFound, StillLoading."""
    service = service_of(request)
    service.require_model(model_id)
    return json_response(_model(service))


@router.api_route("/health", methods=PROBE_METHODS)
async def health(request: Request) -> Response:
    """Raises EngineDead if the engine has ended or says nothing."""
    service = service_of(request)
    engine, limit_s = service.engine, service.config.engine_timeout
    if not engine.alive:
        raise EngineDead("The engine has ended.")
    if engine.silence_s > limit_s:
        raise EngineDead(
            f"The engine has been silent for {engine.silence_s:.0f} seconds; "
            f"the limit is {limit_s:g}."
        )
    return json_response({"status": "ok"})


@router.api_route("/ready", methods=PROBE_METHODS)
async def ready(request: Request) -> Response:
    """While it loads, the body of the 503 has the progress, too."""
    service = service_of(request)
    try:
        service.loaded()
    except StillLoading as error:
        progress = service.engine.loading
        return error_response(error, progress=progress and msgspec.structs.asdict(progress))
    if service.engine.draining:
        raise Draining("The server is shutting down and takes no new requests.")
    return json_response({"status": "ready"})


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """All metrics of `caravan.metrics`."""
    page = service_of(request).metrics.page()
    return Response(page, media_type=CONTENT_TYPE_PLAIN_0_0_4)


@router.get("/version")
async def version() -> Response:
    """Caravan's own version."""
    return json_response({"version": caravan.__version__})


def _model(service: Service) -> Json:
    return {
        "id": service.model_name,
        "object": "model",
        "created": service.started,
        "owned_by": "caravan",
        "max_model_len": service.loaded().max_model_len,
    }
