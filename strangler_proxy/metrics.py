"""The parent's sums as Prometheus metrics, made when they are asked for."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from strangler_proxy.comparisons import Comparisons
from strangler_proxy.outcomes import LATENCY_BOUNDS
from strangler_proxy.table import Routes
from strangler_proxy.totals import ArmCounts, Totals

_BREAKER_STATES = ("closed", "half_open", "open")


class Source(Protocol):
    """Where the numbers come from."""

    def routes(self) -> Routes:
        """The routes in use."""

    def totals(self) -> Totals:
        """The sums."""

    def comparisons(self) -> Comparisons:
        """What comparisons add up to."""

    def workers_ready(self) -> int:
        """How many workers serve."""

    def worker_restarts(self) -> int:
        """How many workers were replaced."""

    def breaker(self, backend: str) -> str:
        """A backend's breaker."""

    def instances(self, backend: str) -> Sequence[Mapping[str, Any]]:
        """The instances of a backend that has several, as `/admin/status` shows them."""

    def refused(self) -> bool:
        """Is the routes file in a state that was refused?"""


class ProxyCollector(Collector):
    """Reads a `Source` at every scrape."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def collect(self) -> Iterator[Metric]:
        """All metrics, fresh."""
        source = self._source
        labels = ["group", "arm"]
        requests = CounterMetricFamily(
            "strangler_requests", "Answers and failures of the arm a request was assigned to", labels=labels
        )
        errors = CounterMetricFamily("strangler_errors", "Failures by kind", labels=[*labels, "error"])
        statuses = CounterMetricFamily(
            "strangler_responses", "Answers by the backend's status", labels=[*labels, "status"]
        )
        fallbacks = CounterMetricFamily(
            "strangler_fallbacks",
            "Requests answered by the default backend instead",
            labels=[*labels, "result"],
        )
        rejections = CounterMetricFamily(
            "strangler_breaker_rejections", "Requests an open breaker kept away", labels=labels
        )
        aborted = CounterMetricFamily("strangler_aborted", "Requests the client gave up", labels=labels)
        overridden = CounterMetricFamily("strangler_overridden", "Testers' requests", labels=labels)
        guarded = CounterMetricFamily(
            "strangler_guarded", "Requests kept with the owner: the other side was behind", labels=labels
        )
        refused = CounterMetricFamily(
            "strangler_refused", "Requests the proxy refused, by reason", labels=[*labels, "reason"]
        )
        cached = CounterMetricFamily("strangler_cached", "Requests answered from memory", labels=labels)
        clients = GaugeMetricFamily("strangler_clients", "Distinct clients seen since start", labels=labels)
        latency = HistogramMetricFamily(
            "strangler_latency_seconds", "From the request's head to the end of the answer", labels=labels
        )
        for group, arms in source.totals().groups.items():
            for arm, totals in arms.items():
                counts = totals.counts
                key = [group, arm.value]
                requests.add_metric(key, counts.requests)
                for error, count in counts.by_error.items():
                    errors.add_metric([*key, error], count)
                for status, count in counts.by_status.items():
                    statuses.add_metric([*key, str(status)], count)
                fallbacks.add_metric([*key, "good"], counts.fallbacks - counts.fallback_errors)
                fallbacks.add_metric([*key, "failed"], counts.fallback_errors)
                rejections.add_metric(key, counts.breaker_rejections)
                aborted.add_metric(key, counts.aborted)
                overridden.add_metric(key, counts.overridden)
                guarded.add_metric(key, counts.guarded)
                for reason, count in counts.refused.items():
                    refused.add_metric([*key, reason], count)
                cached.add_metric(key, counts.cached)
                clients.add_metric(key, totals.clients.count())
                latency.add_metric(key, _buckets(counts), counts.latency_ms_sum / 1000)
        yield from (requests, errors, statuses, fallbacks, rejections, aborted, overridden, guarded)
        yield from (refused, cached, clients, latency)
        yield from self._compared()
        yield from self._state()

    def _compared(self) -> Iterator[Metric]:
        verdicts = CounterMetricFamily(
            "strangler_comparisons",
            "Answers of both sides compared, by verdict",
            labels=["group", "template", "verdict"],
        )
        left_out = CounterMetricFamily(
            "strangler_comparisons_left_out",
            "Drawn requests that were not compared, or not settled, by reason",
            labels=["group", "kind", "reason"],
        )
        for group, sums in self._source.comparisons().groups.items():
            for template, counts in sums.verdicts.items():
                for verdict, count in counts.items():
                    verdicts.add_metric([group, template, verdict], count)
            for kind, reasons in sums.reasons.items():
                for reason, count in reasons.items():
                    left_out.add_metric([group, kind, reason], count)
        yield from (verdicts, left_out)

    def _state(self) -> Iterator[Metric]:
        source = self._source
        routes = source.routes()
        percent = GaugeMetricFamily(
            "strangler_percent", "Share of users whose safe requests go to the service", labels=["group"]
        )
        for group in routes.groups.values():
            percent.add_metric([group.name], float(group.percent))
        breaker = GaugeMetricFamily(
            "strangler_breaker_state",
            "1 for the state a backend's breaker is in",
            labels=["backend", "state"],
        )
        for name in routes.backends:
            current = source.breaker(name)
            for state in _BREAKER_STATES:
                breaker.add_metric([name, state], float(state == current))
        yield percent
        yield breaker
        yield from self._instances()
        yield GaugeMetricFamily("strangler_workers_ready", "Workers that serve", source.workers_ready())
        yield CounterMetricFamily("strangler_worker_restarts", "Workers replaced", source.worker_restarts())
        yield GaugeMetricFamily(
            "strangler_routes_refused", "1 while the routes file is refused", float(source.refused())
        )
        yield CounterMetricFamily(
            "strangler_outcomes_dropped", "Evidence items a worker could not keep", source.totals().dropped
        )

    def _instances(self) -> Iterator[Metric]:
        labels = ["backend", "instance"]
        up = GaugeMetricFamily("strangler_instance_up", "1 while an instance takes requests", labels=labels)
        pending = GaugeMetricFamily("strangler_instance_pending", "Requests an instance has", labels=labels)
        requests = CounterMetricFamily(
            "strangler_instance_requests", "Requests given to an instance", labels=labels
        )
        for name in self._source.routes().backends:
            for instance in self._source.instances(name):
                key = [name, instance["url"]]
                up.add_metric(key, float(instance["up"]))
                pending.add_metric(key, instance["pending"])
                requests.add_metric(key, instance["requests"])
        yield from (up, pending, requests)


def _buckets(counts: ArmCounts) -> list[tuple[str, float]]:
    buckets: list[tuple[str, float]] = []
    running = 0
    for bound, count in zip((*LATENCY_BOUNDS, None), counts.latency, strict=True):
        running += count
        buckets.append(("+Inf" if bound is None else str(bound / 1000), running))
    return buckets


def exposition(source: Source) -> bytes:
    """The text of `GET /metrics`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ProxyCollector(source))
    return generate_latest(registry)
