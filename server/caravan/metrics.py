"""Every metric's name, labels, unit and buckets; the page that Prometheus reads.

    engine      gauges and counters read from its last `Stats`, one snapshot for each scrape
    speed       histograms: first token, between tokens, whole request
    volume      tokens in and out, pictures, requests by how they ended
    HTTP        requests by route, method and status; refusals by error code

A *request* is one choice of one prompt, as the scheduler sees it: `n=4` over two prompts makes
eight, and each counts its prompt's tokens.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Literal, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

# Seconds: from a decode step of a small model to a prompt of a million tokens.
FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
BETWEEN_TOKENS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
WHOLE_REQUEST_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
TOKEN_COUNT_BUCKETS = tuple(4**power for power in range(11))  # 1 .. 2^20 tokens

ROUTE_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


Ending = Literal["stop", "length", "abort", "error"]


class EngineStats(Protocol):
    """What is read of `messages.Stats`, which this layer does not import."""

    @property
    def running(self) -> int:
        """Requests in the running batch."""

    @property
    def waiting(self) -> int:
        """Requests that wait for pages or a place."""

    @property
    def pages_free(self) -> int:
        """Pages of the cache that hold nothing."""

    @property
    def pages_cached(self) -> int:
        """Pages that only the prefix cache holds."""

    @property
    def pages_owned(self) -> int:
        """Pages of running requests."""

    @property
    def steps(self) -> int:
        """Forward passes since the start."""

    @property
    def preemptions(self) -> int:
        """Requests put back for want of pages, since the start."""

    @property
    def computed_tokens(self) -> int:
        """Tokens run through the model since the start."""

    @property
    def encoded_tiles(self) -> int:
        """Tiles of pictures run through the vision encoder since the start."""

    @property
    def reused_tiles(self) -> int:
        """Tiles that were there from an earlier request, since the start."""


class EngineCollector(Collector):
    """The engine's own numbers, read when Prometheus asks."""

    def __init__(self, stats: Callable[[], EngineStats]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """All families from one snapshot, so that their sum is consistent."""
        stats = self._stats()
        yield GaugeMetricFamily(
            "caravan_requests_running", "Requests in the running batch", stats.running
        )
        yield GaugeMetricFamily(
            "caravan_requests_waiting", "Requests that wait for pages or a place", stats.waiting
        )
        pages = GaugeMetricFamily(
            "caravan_kv_pages", "Pages of the cache by state", labels=["state"]
        )
        pages.add_metric(["free"], stats.pages_free)
        pages.add_metric(["cached"], stats.pages_cached)
        pages.add_metric(["owned"], stats.pages_owned)
        yield pages
        yield CounterMetricFamily("caravan_steps", "Forward passes", stats.steps)
        yield CounterMetricFamily(
            "caravan_preemptions", "Requests put back for want of pages", stats.preemptions
        )
        yield CounterMetricFamily(
            "caravan_computed_tokens",
            "Tokens run through the model, recomputed ones included",
            stats.computed_tokens,
        )
        yield CounterMetricFamily(
            "caravan_encoded_tiles",
            "Tiles of pictures run through the vision encoder",
            stats.encoded_tiles,
        )
        yield CounterMetricFamily(
            "caravan_reused_tiles",
            "Tiles of pictures that were there from an earlier request",
            stats.reused_tiles,
        )


class TokenCollector(Collector):
    """What changes with every token. Plain numbers: a counter and a histogram take microseconds."""

    def __init__(self) -> None:
        self.num_tokens = 0
        self._created_s = time.time()
        self._sum_s = 0.0
        self._waits = [0] * (len(BETWEEN_TOKENS_BUCKETS) + 1)  # by bucket; the last has no bound

    def wait(self, seconds: float, count: int) -> None:
        """`count` tokens came so many seconds after the one before them, each."""
        self._sum_s += seconds * count
        self._waits[bisect_left(BETWEEN_TOKENS_BUCKETS, seconds)] += count

    def collect(self) -> Iterator[Metric]:
        """Both families, as prometheus_client's own classes give them."""
        yield CounterMetricFamily(
            "caravan_generation_tokens",
            "Generated tokens",
            self.num_tokens,
            created=self._created_s,
        )
        name = "caravan_inter_token_latency_seconds"
        bounds = map(floatToGoString, (*BETWEEN_TOKENS_BUCKETS, float("inf")))
        between = HistogramMetricFamily(
            name,
            "Between two tokens; tokens that arrive together share the wait",
            list(zip(bounds, accumulate(self._waits), strict=True)),
            self._sum_s,
        )
        between.add_sample(f"{name}_created", {}, self._created_s)
        yield between


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self, stats: Callable[[], EngineStats], version: str) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(EngineCollector(stats))
        self.tokens = TokenCollector()
        self.registry.register(self.tokens)
        Gauge(
            "caravan_build_info", "Always 1; the labels speak", ["version"], registry=self.registry
        ).labels(version=version).set(1)
        self.prompt_tokens = self._counter("prompt_tokens", "Prompt tokens")
        self.cached_tokens = self._counter(
            "prompt_cached_tokens", "Prompt tokens that the prefix cache already held"
        )
        self.images = self._counter("images", "Pictures in requests, fetched, decoded and tiled")
        self.image_s = self._histogram(
            "image_seconds",
            "Fetching, decoding and tiling all pictures of a request",
            FIRST_TOKEN_BUCKETS,
        )
        self.finished = self._counter(
            "requests_finished", "Requests by end: stop, length, abort or error", "reason"
        )
        self.rejected = self._counter(
            "requests_rejected", "HTTP requests that got an error, by its code", "code"
        )
        self.http_requests = self._counter(
            "http_requests", "HTTP requests", "route", "method", "status"
        )
        self.first_token_s = self._histogram(
            "time_to_first_token_seconds",
            "Arrival of the HTTP request to the first token",
            FIRST_TOKEN_BUCKETS,
        )
        self.per_token_s = self._histogram(
            "time_per_output_token_seconds",
            "First to last token of a finished request, over the tokens after the first",
            BETWEEN_TOKENS_BUCKETS,
        )
        self.request_s = self._histogram(
            "request_seconds", "Arrival to the end of a finished request", WHOLE_REQUEST_BUCKETS
        )
        self.prompt_lengths = self._histogram(
            "request_prompt_tokens", "Length of each prompt", TOKEN_COUNT_BUCKETS
        )
        self.generation_lengths = self._histogram(
            "request_generation_tokens", "Length of each finished completion", TOKEN_COUNT_BUCKETS
        )

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"caravan_{name}", documentation, labels, registry=self.registry)

    def _histogram(self, name: str, documentation: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"caravan_{name}", documentation, buckets=buckets, registry=self.registry)

    def count_http(self, route: str, method: str, status: int) -> None:
        """Counts one HTTP answer; a method nobody has heard of is "other", so labels stay few."""
        known = method if method in ROUTE_METHODS else "other"
        self.http_requests.labels(route=route, method=known, status=str(status)).inc()

    def start(self, arrived_s: float, prompt_len: int) -> RequestTimer:
        """Follows a request that has entered the engine; `arrived_s` is from `perf_counter`."""
        self.prompt_tokens.inc(prompt_len)
        self.prompt_lengths.observe(prompt_len)
        return RequestTimer(self, arrived_s)

    def page(self) -> bytes:
        """The text that Prometheus scrapes, in its plain format."""
        return generate_latest(self.registry)


class RequestTimer:
    """One request from its arrival to its end."""

    def __init__(self, metrics: Metrics, arrived_s: float) -> None:
        self._metrics = metrics
        self._tokens = metrics.tokens
        self._arrived_s = arrived_s
        self._first_s: float | None = None
        self._last_s = arrived_s
        self._num_tokens = 0
        self._ended = False

    def tokens(self, count: int, cached_tokens: int) -> None:
        """`count` tokens came, the first of them over a prompt with `cached_tokens`."""
        now = time.perf_counter()
        waits = count
        if self._first_s is None and count:
            self._first_s = now
            self._metrics.first_token_s.observe(now - self._arrived_s)
            self._metrics.cached_tokens.inc(cached_tokens)
            waits -= 1
        if waits:
            self._tokens.wait((now - self._last_s) / count, waits)
        self._tokens.num_tokens += count
        self._last_s = now
        self._num_tokens += count

    def end(self, ending: Ending) -> None:
        """The request is over. Only the first call counts."""
        if self._ended:
            return
        self._ended = True
        metrics = self._metrics
        metrics.finished.labels(reason=ending).inc()
        if ending not in ("stop", "length"):
            return
        metrics.request_s.observe(time.perf_counter() - self._arrived_s)
        metrics.generation_lengths.observe(self._num_tokens)
        if self._first_s is not None and self._num_tokens > 1:
            metrics.per_token_s.observe((self._last_s - self._first_s) / (self._num_tokens - 1))
