"""Request ids, the shape of errors, and every error class by the request that causes it."""

from __future__ import annotations

import base64
import inspect
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from api.conftest import MODEL, MakeApp
from api.fake_engine import FakeEngine, say
from caravan import errors
from caravan.config import ApiConfig, ImageConfig
from caravan.messages import Progress

BODY = {"model": MODEL, "prompt": "Hi"}


def refuses(error: errors.ApiError) -> Callable[[FakeEngine], None]:
    return lambda engine: setattr(engine, "refusal", error)


def fails(error: errors.ApiError) -> Callable[[FakeEngine], None]:
    """A generation that cannot go on, before its first token."""

    def change(engine: FakeEngine) -> None:
        engine.script = lambda index, sampling: [error]

    return change


def breaks(engine: FakeEngine) -> None:
    engine.script = lambda index, sampling: [RuntimeError("secret")]


def dies(engine: FakeEngine) -> None:
    engine.alive = False


def loads(engine: FakeEngine) -> None:
    engine.ready = None
    engine.loading = Progress("weights", 3, 12, "tensors")


def shows(url: str) -> Cause:
    """A chat request with a picture, to a server that reads small ones only."""
    part = {"type": "image_url", "image_url": {"url": url}}
    return Cause(
        body={"model": MODEL, "messages": [{"role": "user", "content": [part]}]},
        path="/v1/chat/completions",
    )


def png(size: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size)).save(file, "PNG")
    return file.getvalue()


def data_url(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


SMALL_IMAGES = ImageConfig(max_image_bytes=500, max_image_pixels=100)


@dataclass
class Cause:
    """What makes an error happen."""

    body: dict[str, Any] | None = field(default_factory=lambda: BODY)
    method: str = "POST"
    path: str = "/v1/completions"
    headers: dict[str, str] = field(default_factory=dict)
    config: ApiConfig = ApiConfig()
    engine: Callable[[FakeEngine], None] = lambda engine: None
    expected: dict[str, str] = field(default_factory=dict)  # headers of the answer


CAUSES: dict[type[errors.ApiError], Cause] = {
    errors.InvalidRequest: Cause(body=None),
    errors.MissingParameter: Cause({"model": MODEL}),
    errors.UnknownParameter: Cause({**BODY, "foo": 1}),
    errors.UnsupportedParameter: Cause({**BODY, "suffix": "x"}),
    errors.InvalidType: Cause({**BODY, "n": "1"}),
    errors.InvalidValue: Cause({**BODY, "n": 0}),
    errors.ContextLengthExceeded: Cause({**BODY, "max_tokens": 1000}),
    errors.InvalidGrammar: Cause({**BODY, "structured_outputs": {"regex": "("}}),
    errors.GrammarTooComplex: Cause(engine=fails(errors.GrammarTooComplex("it grew"))),
    errors.InvalidApiKey: Cause(
        config=ApiConfig(api_key=("k",)), expected={"www-authenticate": "Bearer"}
    ),
    errors.RouteNotFound: Cause(path="/v1/embeddings"),
    errors.ModelNotFound: Cause({**BODY, "model": "gpt-4"}),
    errors.MethodNotAllowed: Cause(method="DELETE", expected={"allow": "POST"}),
    errors.RequestTooLarge: Cause(config=ApiConfig(max_body_bytes=10)),
    errors.UnsupportedMediaType: Cause(headers={"content-type": "text/plain"}),
    errors.InternalError: Cause(engine=breaks),
    errors.StillLoading: Cause(engine=loads, expected={"retry-after": "5"}),
    errors.Draining: Cause(engine=refuses(errors.Draining("bye"))),
    errors.Overloaded: Cause(
        engine=refuses(errors.Overloaded("full", retry_after_s=17)),
        expected={"retry-after": "17"},
    ),
    errors.EngineDead: Cause(engine=dies),
    errors.InvalidImageUrl: shows("file:///etc/passwd"),
    errors.InvalidBase64Image: shows("data:image/png;base64,????"),
    errors.FailedToDownloadImage: shows("http://127.0.0.1:9/secret.png"),
    errors.EmptyImageFile: shows(data_url(b"")),
    errors.ImageFileTooLarge: shows(data_url(bytes(501))),
    errors.UnsupportedImageMediaType: shows(data_url(b"%PDF-1.7 secret")),
    errors.ImageTooLarge: shows(data_url(png(11))),
    errors.ImageParseError: shows(data_url(png(10)[:45])),
}


def test_every_error_class_has_a_cause() -> None:
    classes = {
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, errors.ApiError)
    }
    assert CAUSES.keys() == classes - {errors.ApiError, errors.InvalidImage}


@pytest.mark.parametrize("image_config", [SMALL_IMAGES], ids=[""])
@pytest.mark.parametrize("kind", CAUSES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("stream", [False, True])
async def test_every_error(
    make_app: MakeApp, engine: FakeEngine, kind: type[errors.ApiError], stream: bool
) -> None:
    cause = CAUSES[kind]
    cause.engine(engine)
    transport = httpx.ASGITransport(make_app(cause.config))
    headers = {"content-type": "application/json", "x-request-id": "mine", **cause.headers}
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        if cause.body is None:
            response = await http.request(cause.method, cause.path, content=b"{", headers=headers)
        else:
            body = {**cause.body, "stream": stream}
            response = await http.request(cause.method, cause.path, json=body, headers=headers)
        page = await http.get("/metrics")
    assert response.status_code == kind.status
    assert response.headers["content-type"] == "application/json"
    assert response.headers.get_list("x-request-id") == ["mine"]
    assert cause.expected.items() <= dict(response.headers).items()
    body = response.json()
    assert body.keys() == {"error"}
    error = body["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == (kind.type, kind.code)
    assert "secret" not in response.text
    code = kind.code or "invalid_request"
    assert f'caravan_requests_rejected_total{{code="{code}"}} 1.0' in page.text
    assert all(generation.closed for generation in engine.generations)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("abc-123", True),
        ("a" * 128, True),
        ("with space", True),
        ("a" * 129, False),
        ("", False),
        ("a\x7fb", False),
        ("ä", False),
    ],
)
async def test_request_ids(http: httpx.AsyncClient, given: str, kept: bool) -> None:
    response = await http.get("/version", headers={b"x-request-id": given.encode("latin-1")})
    assert (response.headers["x-request-id"] == given) == kept
    assert response.headers["x-request-id"].isascii()


async def test_fresh_request_ids_differ(http: httpx.AsyncClient) -> None:
    ids = {(await http.get("/version")).headers["x-request-id"] for _ in range(10)}
    assert len(ids) == 10


async def test_an_internal_error_is_logged_under_its_id(
    http: httpx.AsyncClient, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    breaks(engine)
    response = await http.post("/v1/completions", json=BODY, headers={"x-request-id": "find-me"})
    assert "find-me" in response.json()["error"]["message"]
    assert "RuntimeError: secret" in caplog.text


async def test_not_found_shows_little(http: httpx.AsyncClient) -> None:
    response = await http.get("/" + "x" * 5000 + "%0a%1b")
    assert response.status_code == 404
    assert len(response.json()["error"]["message"]) < 120


async def test_a_slash_too_many_is_not_a_redirect(http: httpx.AsyncClient) -> None:
    assert (await http.get("/v1/models/x/")).status_code == 404
    assert (await http.get("/version/")).status_code == 404


def test_openai_raises_its_own_errors(client: openai.OpenAI, engine: FakeEngine) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        client.completions.create(model=MODEL, prompt="Hi", temperature=3)
    assert (bad.value.code, bad.value.param) == ("invalid_value", "temperature")
    assert bad.value.request_id
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="gpt-4", prompt="Hi")
    assert missing.value.code == "model_not_found"
    engine.refusal = errors.Overloaded("full", retry_after_s=1)
    with pytest.raises(openai.InternalServerError) as full:
        client.completions.create(model=MODEL, prompt="Hi")
    assert full.value.code == "overloaded"


def test_openai_sees_a_failure_on_the_way(client: openai.OpenAI, engine: FakeEngine) -> None:
    engine.script = lambda index, sampling: [*say("ab")[:1], 0.01, errors.EngineDead("gone")]
    with (
        client.completions.create(model=MODEL, prompt="Hi", stream=True) as stream,
        pytest.raises(openai.APIError, match="gone") as caught,
    ):
        list(stream)
    assert caught.value.code == "engine_dead"
