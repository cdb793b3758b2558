"""Write the dashboard: `python deploy/grafana/dashboards/render.py` (`--check`: is the file up to date?).

One row a question: where does the migration stand, does the service do as well as the monolith, are its data fresh?
"""

import json
import sys
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("migration.json")
ROWS: list[list[tuple[str, str, str, dict[str, str]]]] = [
    [
        ("Share of users on the service", "percent", "timeseries", {
            "wanted {{plan}}": 'strangler_migration_percent{what="wanted"}',
            "live {{plan}}": 'strangler_migration_percent{what="live"}'}),
        ("State", "short", "state-timeline", {"{{state}}": "strangler_migration_state == 1"}),
        ("Gates", "short", "stat", {"{{gate}}": "strangler_migration_gate_open"}),
    ],
    [
        ("Requests a second by arm", "reqps", "timeseries", {
            "{{group}} {{arm}}": "sum by (group, arm) (rate(strangler_requests_total[1m]))"}),
        ("Failures, share of requests", "percentunit", "timeseries", {
            "{{group}} {{arm}}": "sum by (group, arm) (rate(strangler_errors_total[1m])) / "
            "sum by (group, arm) (rate(strangler_requests_total[1m]))"}),
        ("Latency, 95th percentile", "s", "timeseries", {
            "{{group}} {{arm}}": "histogram_quantile(0.95, "
            "sum by (group, arm, le) (rate(strangler_latency_seconds_bucket[1m])))"}),
        ("Answered by the monolith instead", "reqps", "timeseries", {
            "{{group}}": "sum by (group) (rate(strangler_fallbacks_total[1m]))"}),
    ],
    [
        ("How far the data are behind", "s", "timeseries", {"{{plan}}": "strangler_stream_lag_seconds"}),
        ("Log not yet applied", "bytes", "timeseries", {"{{plan}}": "strangler_stream_lag_bytes"}),
        ("Rows that differ", "short", "stat", {"{{plan}}": "strangler_migration_rows_differing"}),
        ("Workers, refused routes, lost evidence", "short", "timeseries", {
            "workers": "strangler_workers_ready", "routes refused": "strangler_routes_refused",
            "lost": "strangler_outcomes_dropped_total"}),
    ],
]  # fmt: skip


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    for down, row in enumerate(ROWS):
        width = 24 // len(row)
        for across, (title, unit, kind, queries) in enumerate(row):
            panels.append(
                {
                    "id": len(panels) + 1,
                    "title": title,
                    "type": kind,
                    "datasource": {"type": "prometheus", "uid": "prometheus"},
                    "gridPos": {"h": 8, "w": width, "x": across * width, "y": down * 8},
                    "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
                    "targets": [
                        {"refId": chr(65 + place), "expr": expr, "legendFormat": legend}
                        for place, (legend, expr) in enumerate(queries.items())
                    ],
                }
            )
    return {
        "uid": "strangler", "title": "Migration", "schemaVersion": 41, "refresh": "5s", "editable": False,
        "time": {"from": "now-15m", "to": "now"}, "panels": panels, "tags": ["strangler"],
    }  # fmt: skip


def main(arguments: list[str]) -> int:
    """Write the file, or compare it."""
    text = json.dumps(dashboard(), indent=1) + "\n"
    if "--check" in arguments:
        return 0 if FILE.read_text(encoding="utf-8") == text else 1
    FILE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
