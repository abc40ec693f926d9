"""The web application: routes and layers, put together."""

from __future__ import annotations

import time

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

import caravan
from caravan.api import chat, completions, openapi, system, tokenize, ui
from caravan.api.auth import PUBLIC_PATHS, Authentication
from caravan.api.constraint import GrammarDesk
from caravan.api.edge import BodyLimit, Edge, on_http_exception
from caravan.api.images import ImageLoader
from caravan.api.service import Service
from caravan.config import ApiConfig
from caravan.engine.handle import Engine
from caravan.metrics import Metrics
from caravan.text.defaults import GenerationDefaults
from caravan.text.tokenizer import Tokenizer

ENDPOINTS = (chat, completions, tokenize, system, openapi)


def create_app(
    engine: Engine,
    tokenizer: Tokenizer,
    defaults: GenerationDefaults,
    config: ApiConfig,
    *,
    model_name: str,
    images: ImageLoader,
) -> FastAPI:
    """The application over one engine, which may still be loading: then it answers 503 `loading`.

    `model_name` is what clients send as `model`. The app starts and stops nothing but the
    threads that check grammars: the lives of the engine and of `images` are their owner's business.
    """
    metrics = Metrics(lambda: engine.stats, caravan.__version__)
    layers = [Middleware(Edge, metrics=metrics)]
    if config.api_key:
        # The page has a field for the key, so it is there before it has one.
        public = PUBLIC_PATHS | ui.PATHS if config.ui else PUBLIC_PATHS
        layers.append(Middleware(Authentication, keys=config.api_key, public=public))
    layers.append(Middleware(BodyLimit, limit=config.max_body_bytes))
    app = FastAPI(
        title="Caravan",
        version=caravan.__version__,
        # Our own description is truer (`openapi`). Documentation pages would load scripts from
        # elsewhere; a redirect trusts the Host header.
        openapi_url=None,
        redirect_slashes=False,
        middleware=layers,
        exception_handlers={HTTPException: on_http_exception},
    )
    app.state.service = Service(
        engine=engine,
        tokenizer=tokenizer,
        defaults=defaults,
        config=config,
        images=images,
        model_name=model_name,
        metrics=metrics,
        started=int(time.time()),
        grammars=GrammarDesk(tokenizer),
    )
    for module in ENDPOINTS:
        app.include_router(module.router)
    if config.ui:
        app.include_router(ui.new_router())
    return app
