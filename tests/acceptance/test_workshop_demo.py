"""The real demo, shortened in soak time alone, and judged by its own report."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.test_workshop_up_down import ROOT, STRANGLER, clean_environment, processes_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

SMALL = ["--products", "300", "--users", "200", "--orders", "50", "--plain"]


@pytest.mark.alone  # beside other tests on two cores shoppers would see time-outs
@pytest.mark.parametrize(("engine", "cdc"), [("python", "slot"), ("envoy", "kafka")])
def test_the_catalogue_moves_with_a_fault_on_the_way(tmp_path: Path, engine: str, cdc: str) -> None:
    done = subprocess.run(
        # a gentle rate, whatever the machine is busy with
        [STRANGLER, "demo", "--var", str(tmp_path), *SMALL, "--seconds-per-stage", "5", "--rate", "15",
         "--engine", engine, "--cdc", cdc],
        cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 4), done.stdout[-6000:] + done.stderr[-2000:]
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    failed = {check["name"] for check in report["checks"] if not check["passed"]}
    # the one promise in real time is kept on a machine of one's own, which a test's is not always
    assert failed <= {"0 % in every worker within 250 ms of the deciding response"}, done.stdout[-6000:]
    assert (report["result"], done.returncode) == (("failed", 4) if failed else ("passed", 0))
    assert len(report["checks"]) == 12
    percents = [stage["percent"] for stage in report["stages"] if stage["name"].startswith("ramp")]
    assert percents == [10, 25, 25, 50, 75, 100]
    assert report["rollback"]["stage"] == "ramp 25"
    assert 1 <= report["rollback"]["canary_requests_to_detect"] <= 3
    assert report["rollback"]["actuation_ms"] >= 0
    assert report["requests"]["user_visible_errors"] == 0
    assert report["requests"]["by_arm"]["fallback"] >= 1
    assert report["requests"]["total"] == sum(report["requests"]["by_status"].values())
    assert set(report["requests"]["by_status"]) <= {"200", "201", "204", "400", "409"}
    assert report["stickiness"]["flipped_back"] == 0
    assert report["stickiness"]["users"] > 30
    assert len(report["verify"]["tables"]) >= 4
    assert all(table["rows"] > 0 and table["differing"] == 0 for table in report["verify"]["tables"].values())
    assert re.fullmatch(r"[0-9A-F]+/[0-9A-F]+", report["verify"]["position"])
    assert report["cdc"]["changes_applied"] > 0
    assert report["cdc"]["lag_ms_p50"] <= report["cdc"]["lag_ms_p99"]
    assert (tmp_path / "demo" / "report.html").stat().st_size > 20_000
    assert processes_of(tmp_path) == []


def test_ctrl_c_in_the_middle_of_the_traffic_leaves_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [STRANGLER, "demo", "--var", str(tmp_path), *SMALL],
        cwd=ROOT, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            if "$ strangler start" in line:
                break
        os.kill(process.pid, signal.SIGINT)
        rest = process.stdout.read()
    assert process.wait(60) == 130, rest
    assert "everything that was started has been stopped" in rest
    assert processes_of(tmp_path) == []
    assert sys.platform != "linux" or not (tmp_path / "demo" / "report.json").exists()
