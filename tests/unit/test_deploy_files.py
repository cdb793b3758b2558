"""Files for other programs (compose, Prometheus, Grafana) fit what we really are: metrics, locks, ports, secrets."""

import json
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from migration_plans.exposition import exposition
from migration_plans.stages import State

ROOT = Path(__file__).resolve().parents[2]
REPORT: dict[str, Any] = {
    "plan": "catalog",
    "state": "active",
    "stages": [{"name": "ramp 10", "place": "passed"}, {"name": "ramp 25", "place": "here"}],
    "percent": 25.0,
    "live_percent": None,
    "controller": {"running": True},
    "gates": [{"gate": "lag", "outcome": "pass"}, {"gate": "requests", "outcome": "hold"}],
    "verified": {"differing": 3},
    "lag": {"seconds": 0.25, "bytes": None},
}


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load((ROOT / "docker-compose.yml").read_text())
    return loaded


def samples(text: str) -> dict[str, dict[str, float]]:
    return {
        family.name: {
            ",".join(v for k, v in sorted(s.labels.items()) if k != "plan"): s.value for s in family.samples
        }
        for family in text_string_to_metric_families(text)
    }


def test_a_report_becomes_metrics_and_what_is_not_known_has_none() -> None:
    found = samples(exposition(REPORT).decode())
    assert found["strangler_migration_stage"] == {"ramp 10": 0, "ramp 25": 1}
    assert found["strangler_migration_percent"] == {"wanted": 25}
    assert found["strangler_migration_gate_open"] == {"lag": 1, "requests": 0}
    assert found["strangler_migration_rows_differing"] == {"": 3}
    assert found["strangler_stream_lag_seconds"] == {"": 0.25}
    assert "strangler_stream_lag_bytes" not in found
    assert set(found["strangler_migration_state"]) == {state.value for state in State}


def known_metrics() -> set[str]:
    source = (ROOT / "strangler_proxy" / "metrics.py").read_text()
    proxy = set(re.findall(r'"(strangler_[a-z_]+)"', source))
    migration = set(samples(exposition({**REPORT, "lag": {"seconds": 0, "bytes": 0}}).decode()))
    counters = {f"{name}_total" for name in proxy} | {f"{name}_bucket" for name in proxy}
    return proxy | counters | migration


@pytest.mark.parametrize("file", ["deploy/grafana/dashboards/migration.json", "deploy/prometheus/alerts.yml"])
def test_dashboards_and_alerts_ask_for_metrics_that_there_are(file: str) -> None:
    asked = set(re.findall(r"\bstrangler_[a-z_]+", (ROOT / file).read_text()))
    assert asked
    assert asked <= known_metrics()


def test_alerts_name_states_that_there_are() -> None:
    text = (ROOT / "deploy/prometheus/alerts.yml").read_text()
    assert set(re.findall(r'state="([a-z_]+)"', text)) <= {state.value for state in State}


def test_the_dashboard_is_what_its_program_writes() -> None:
    program = ROOT / "deploy/grafana/dashboards/render.py"
    subprocess.run([sys.executable, str(program), "--check"], check=True)
    assert json.loads(program.with_name("migration.json").read_text())["panels"]


def test_images_are_pinned_ports_are_loopback_and_secrets_come_from_outside() -> None:
    services = compose()["services"]
    for name, service in services.items():
        image = service["image"]
        assert "build" in service or re.search(r":v?\d+\.\d+", image), f"{name}: {image} is not pinned"
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} listens beyond loopback"
        for key, value in (service.get("environment") or {}).items():
            if re.search(r"PASSWORD|SECRET|TOKEN", key):
                assert str(value).startswith("${"), f"{name}: {key} stands in the file"


def test_everything_that_stays_up_is_watched_or_restarted() -> None:
    for name, service in compose()["services"].items():
        if service.get("restart") == "no":
            continue
        assert service["restart"] == "unless-stopped", name
        if name not in {
            "change-stream",
            "controller",
            "jaeger",
        }:  # they serve nobody, or cannot ask themselves
            assert "healthcheck" in service, name


def test_the_image_installs_what_is_tested_here() -> None:
    def versions(file: str) -> dict[str, str]:
        return dict(re.findall(r"^([a-z0-9-]+)==([^ \\;]+)", (ROOT / file).read_text(), re.MULTILINE))

    ours, image = versions("requirements.lock"), versions("deploy/compose/requirements.lock")
    # its newest release waits for the instrumentation's
    differing = {name for name in ours.keys() & image.keys() if ours[name] != image[name]}
    assert differing <= {"opentelemetry-api"}
    assert "pytest" not in image


def test_secrets_are_made_once_and_readable_by_the_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    make = [sys.executable, str(ROOT / "deploy/compose/make_env.py"), str(file)]
    subprocess.run(make, check=True, capture_output=True)
    first = file.read_text()
    file.write_text(first.replace("SHOP_PASSWORD=", "SHOP_PASSWORD=mine"))
    subprocess.run(make, check=True, capture_output=True)
    assert "SHOP_PASSWORD=mine" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    wanted = set(re.findall(r"\$\{([A-Z_]+):\?", (ROOT / "docker-compose.yml").read_text()))
    assert wanted <= {line.split("=")[0] for line in first.splitlines()}
