"""Counts and times requests, for Prometheus: `GET /metrics`.

metrics = Metrics(models)
metrics.answered("/caption", 200, 0.12)
metrics.text()
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from paligemma_lib.serving.endpoint.served_models import ServedModels
from paligemma_lib.serving.jobs import Job

_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)


class Metrics:
    """Metrics of one server, in a registry of their own."""

    def __init__(self, models: ServedModels):
        """Takes the engines, whose queues are looked at when somebody asks."""
        self._registry = CollectorRegistry()
        self._registry.register(_Engines(models))
        self._requests = Counter(
            "paligemma_requests", "Requests.", ("path", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "paligemma_request_seconds",
            "Time from the head of a request to the end of its answer.",
            ("path",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._first = Histogram(
            "paligemma_first_text_seconds",
            "Time from reading an image to the first text of a streamed caption.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._caption = Histogram(
            "paligemma_caption_seconds",
            "Time from reading an image to its whole caption, without the queue.",
            buckets=_SECONDS,
            registry=self._registry,
        )

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Counts a request."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def first_text(self, job: Job) -> None:
        """Notes that a streamed caption has begun."""
        self._first.observe(time.monotonic() - (job.begun or time.monotonic()))

    def captioned(self, job: Job) -> None:
        """Notes a whole caption."""
        self._caption.observe(job.answer.seconds)

    def text(self) -> bytes:
        """Returns all metrics in Prometheus's text format."""
        return generate_latest(self._registry)


class _Engines(Collector):
    def __init__(self, models: ServedModels):
        self._models = models

    def collect(self) -> Iterator[Metric]:
        waiting = GaugeMetricFamily("paligemma_waiting", "Images that wait.", labels=["model"])
        writing = GaugeMetricFamily(
            "paligemma_writing", "Images whose captions are being written.", labels=["model"]
        )
        tokens = CounterMetricFamily("paligemma_tokens", "Tokens written.", labels=["model"])
        failed = CounterMetricFamily(
            "paligemma_failed_batches", "Batches that have failed.", labels=["model"]
        )
        restarts = CounterMetricFamily(
            "paligemma_thread_restarts", "Threads that were started again.", labels=["model"]
        )
        for name, engine in self._models.engines.items():
            counts = engine.counts()
            for metric, value in (
                (waiting, "waiting"),
                (writing, "writing"),
                (tokens, "tokens"),
                (failed, "failed_batches"),
                (restarts, "restarts"),
            ):
                metric.add_metric([name], counts[value])
        yield from (waiting, writing, tokens, failed, restarts)
