"""A migration as Prometheus reads it: the report of `strangler status` turned into metrics. Pure.

What is not known has no sample, rather than a zero that looks like good news.

| metric | |
|---|---|
| `strangler_migration_state{state}` | 1 for the state it is in, 0 for every other |
| `strangler_migration_stage{stage}` | 1 for the stage it is in |
| `strangler_migration_percent{what}` | `wanted` by the ledger, `live` in the workers |
| `strangler_migration_controller_running` | 1 while a controller holds the lock |
| `strangler_migration_gate_open{gate}` | 1 where the gate lets it pass |
| `strangler_migration_rows_differing` | of the last comparison of both sides |
| `strangler_stream_lag_seconds`, `_bytes` | how far the service's data are behind |

Text format: https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from migration_plans.stages import State

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(report: Mapping[str, Any]) -> bytes:
    """The text for one report (docs/reference/status.md)."""
    registry = CollectorRegistry()
    registry.register(_Report(report))
    return generate_latest(registry)


class _Report(Collector):
    def __init__(self, report: Mapping[str, Any]) -> None:
        self._report = report

    def collect(self) -> Iterator[Metric]:
        """The samples."""
        report, plan = self._report, str(self._report["plan"])

        def gauge(name: str, help_: str, *labels: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"strangler_{name}", help_, labels=("plan", *labels))

        def single(name: str, help_: str, value: float) -> GaugeMetricFamily:
            family = gauge(name, help_)
            family.add_metric([plan], value)
            return family

        states = gauge("migration_state", "The state it is in.", "state")
        for state in State:
            states.add_metric([plan, state.value], state.value == report["state"])
        yield states
        if report["stages"]:
            stages = gauge("migration_stage", "The stage it is in.", "stage")
            for stage in report["stages"]:
                stages.add_metric([plan, stage["name"]], stage["place"] == "here")
            yield stages
        percent = gauge("migration_percent", "Share of users, in percent.", "what")
        for what, value in (("wanted", report["percent"]), ("live", report["live_percent"])):
            if value is not None:
                percent.add_metric([plan, what], value)
        yield percent
        yield single(
            "migration_controller_running",
            "Does a controller hold the lock?",
            report["controller"]["running"],
        )
        gates = gauge("migration_gate_open", "Does the gate let it pass?", "gate")
        for gate in report["gates"]:
            gates.add_metric([plan, gate["gate"]], gate["outcome"] == "pass")
        yield gates
        if report["verified"] is not None:
            yield single(
                "migration_rows_differing",
                "Rows that differ between both sides.",
                report["verified"]["differing"],
            )
        lag = report["lag"] or {}
        for unit in ("seconds", "bytes"):
            if lag.get(unit) is not None:
                yield single(f"stream_lag_{unit}", "How far the service's data are behind.", lag[unit])
