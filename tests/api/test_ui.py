"""The chat page as files: what is served, under which headers, to whom, and when it is not."""

from __future__ import annotations

import re
from importlib import resources

import httpx
import pytest
from fastapi.routing import APIRoute

from caravan.api import openapi, ui
from caravan.config import ApiConfig

WITH_KEY = pytest.mark.parametrize("config", [ApiConfig(api_key=("key",))])
WITHOUT_PAGE = pytest.mark.parametrize("config", [ApiConfig(ui=False)])
WITHOUT_PAGE_WITH_KEY = pytest.mark.parametrize("config", [ApiConfig(ui=False, api_key=("key",))])
BEARER = {"authorization": "Bearer key"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
# What would make markup, code or a style of a text.
FORBIDDEN = (
    "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function",
    "setHTML", "createContextualFragment", "DOMParser", "setAttribute('style'", "javascript:",
)  # fmt: skip
ELSEWHERE = re.compile(r"https?://(?!www\.w3\.org/(?:2000/svg|1999/))")


def source(name: str) -> str:
    return resources.files("caravan.api.ui").joinpath(name).read_text()


def test_every_file_of_the_page_is_listed_and_no_other() -> None:
    files = {file.name for file in resources.files("caravan.api.ui").iterdir() if file.is_file()}
    assert files - {"__init__.py"} == set(ui.FILES.values())


@pytest.mark.parametrize("path", ui.FILES)
async def test_a_file_and_its_headers(http: httpx.AsyncClient, path: str) -> None:
    response = await http.get(path)
    assert response.status_code == 200
    assert response.text == source(ui.FILES[path])
    headers = response.headers
    media_type = headers["content-type"]
    assert media_type == ui.MEDIA_TYPES[ui.FILES[path].rpartition(".")[2]]
    assert headers["content-security-policy"] == POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["permissions-policy"].count("=()") == 5
    assert headers["cache-control"] == "no-cache"
    assert headers["x-request-id"]
    head = await http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    for name in headers.keys() - {"x-request-id"}:
        assert head.headers[name] == headers[name], name


async def test_media_types(http: httpx.AsyncClient) -> None:
    for path, media_type in (
        ("/", "text/html; charset=utf-8"),
        ("/ui/style.css", "text/css; charset=utf-8"),
        ("/ui/main.js", "text/javascript; charset=utf-8"),
        ("/ui/icon.svg", "image/svg+xml"),
    ):
        assert (await http.get(path)).headers["content-type"] == media_type


async def test_what_the_client_has_is_not_sent_again(http: httpx.AsyncClient) -> None:
    first = await http.get("/")
    tag = first.headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        for method in ("GET", "HEAD"):
            again = await http.request(method, "/", headers={"if-none-match": known})
            assert (again.status_code, again.content) == (304, b""), known
            assert again.headers["etag"] == tag
            assert again.headers["cache-control"] == "no-cache"
            assert again.headers["content-security-policy"] == POLICY
            assert "content-type" not in again.headers
    for unknown in ('"other"', tag.strip('"'), ""):
        again = await http.get("/", headers={"if-none-match": unknown})
        assert (again.status_code, again.text) == (200, first.text)


async def test_each_content_has_its_own_tag(http: httpx.AsyncClient) -> None:
    tags = [(await http.get(path)).headers["etag"] for path in ui.FILES]
    assert len(set(tags)) == len(ui.FILES)
    assert all(re.fullmatch(r'"[0-9a-f]{32}"', tag) for tag in tags)


@WITH_KEY
async def test_the_page_needs_no_key_and_all_else_still_does(http: httpx.AsyncClient) -> None:
    for path in ui.FILES:
        assert (await http.get(path)).status_code == 200, path
    for path in ("/ui", "/ui/", "/ui/unknown.js", "/index.html", "/ui/../v1/models", "http://test//",
                 "/ui/style.css/", "/ui//main.js", "/UI/main.js", "/v1/models",
                 "/ui/%2e%2e/v1/models", "/ui/main.js%2f..%2f..%2fv1%2fmodels"):  # fmt: skip
        assert (await http.get(path)).status_code == 401, path


async def test_only_listed_files(http: httpx.AsyncClient) -> None:
    for path in ("/ui", "/ui/", "/ui/index.html", "/ui/__init__.py", "/ui/../ui/__init__.py",
                 "/ui/%2e%2e/app.py", "/ui/..%2f..%2fapp.py", "/ui//etc/passwd",
                 "/ui/main.js/", "/ui/main.js%00"):  # fmt: skip
        response = await http.get(path)
        assert response.status_code == 404, path
        assert response.json()["error"]["code"] == "not_found"
    response = await http.post("/")
    assert response.status_code == 405
    assert {method.strip() for method in response.headers["allow"].split(",")} == {"GET", "HEAD"}


@WITHOUT_PAGE
async def test_it_can_be_turned_off(http: httpx.AsyncClient) -> None:
    unknown = await http.get("/unknown")
    for path in ui.FILES:
        response = await http.get(path)
        assert response.status_code == 404
        expected = unknown.json()["error"]["message"].replace("/unknown", path)
        assert response.json() == {"error": {**unknown.json()["error"], "message": expected}}
        assert "content-security-policy" not in response.headers


@WITHOUT_PAGE_WITH_KEY
async def test_turned_off_its_paths_are_as_closed_as_others(http: httpx.AsyncClient) -> None:
    for path in ui.FILES:
        assert (await http.get(path)).status_code == 401
        assert (await http.get(path, headers=BEARER)).status_code == 404


def test_it_is_no_part_of_the_described_api() -> None:
    assert not openapi.document(keyed=False)["paths"].keys() & ui.PATHS
    routes = [route for route in ui.new_router().routes if isinstance(route, APIRoute)]
    assert {route.path for route in routes} == ui.PATHS
    assert not any(route.include_in_schema for route in routes)


async def test_requests_are_counted_by_their_path(http: httpx.AsyncClient) -> None:
    await http.get("/ui/main.js")
    assert 'route="/ui/main.js"' in (await http.get("/metrics")).text


def test_the_page_needs_nothing_that_its_policy_forbids() -> None:
    html = source(ui.INDEX)
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|<base|<iframe", html)
    for name in ui.FILES.values():
        text = source(name)
        assert not ELSEWHERE.search(text), name
        assert [word for word in FORBIDDEN if word in text] == [], name
        assert "@import" not in text


def test_modules_are_small_and_say_what_they_are_for() -> None:
    for name in ui.MODULES:
        text = source(f"{name}.js")
        assert text.startswith("// "), name
        assert len(text.splitlines()) < 300, name
        assert max(map(len, text.splitlines())) <= 110, name


def test_all_modules_are_asked_for_at_once() -> None:
    """Not one after the other, as their imports are found."""
    html = source(ui.INDEX)
    scripts = re.findall(r'<script type="module"[^>]* src="ui/(\w+)\.js">', html)
    preloads = re.findall(r'<link rel="modulepreload" href="ui/(\w+)\.js">', html)
    assert sorted([*scripts, *preloads]) == sorted(ui.MODULES)
    modules = "".join(source(f"{name}.js") for name in ui.MODULES)
    imported = set(re.findall(r"from '\./(\w+)\.js'", modules))
    assert imported | set(scripts) == set(ui.MODULES)
