"""The demo's report: `report.json` for machines, `report.html` for people, both from the same facts.

`report.html` holds everything it needs: no script, no font, no picture from elsewhere.
"""

import html
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from workshop import plots
from workshop.checks import Check, users_by_chance
from workshop.facts import Facts


def as_json(facts: Facts, checks: Sequence[Check]) -> dict[str, Any]:
    """The report as plain data. Times are seconds since the start unless they are dates (UTC).

    `rollback.canary_requests_to_detect` is the number that is promised to be at most three: canary requests from
    the first failure after the last good answer to the deciding one, a client's repetitions left out, as in the
    controller's test. `..._since_last_good` counts the repetitions too, `..._since_first_failure` everything
    from the first failure on, also good answers that were under way when the service broke. `shares.by_chance`:
    least and greatest number of users at the service that the percentage may give.
    """
    rollback = facts.rollback
    return {
        "result": "passed" if all(check.passed for check in checks) else "failed",
        "started": _date(facts.started),
        "seconds": round(facts.seconds, 1),
        "trouble": facts.trouble,
        "stages": [
            {
                "name": stage.name,
                "started": round(stage.started - facts.started, 2),
                "seconds": round(stage.seconds, 2),
                "percent": stage.percent,
            }
            for stage in facts.stages
        ],
        "rollback": None
        if rollback is None
        else {
            "stage": rollback.stage,
            "canary_requests_to_detect": rollback.detection.trials,
            "canary_requests_since_last_good": rollback.detection.since_last_good,
            "canary_requests_since_first_failure": rollback.detection.since_first_failure,
            "actuation_ms": round(rollback.actuation_ms, 1),
            "actuation_ms_by_ledger": rollback.ledger_actuation_ms,
            "decided_at": round(rollback.decided_ns / 1e9 - facts.started, 3),
            "verdict": dict(rollback.verdict),
        },
        "requests": {
            "total": facts.total,
            "rate": facts.rate,
            "rate_at_end": round(facts.rate_at_end, 1),
            "by_arm": dict(facts.by_arm),
            "user_visible_errors": len(facts.faults),
            "by_status": dict(facts.by_status),
            "by_step": dict(facts.steps),
            "latency_ms": {arm: asdict(latency) for arm, latency in facts.latency.items()},
            "errors": [
                {
                    "at": round(seen.answered - facts.started, 3),
                    "step": seen.step,
                    "arm": seen.arm,
                    "status": seen.status,
                    "fault": seen.fault,
                    "request_id": seen.request_id,
                }
                for seen in facts.faults[:50]
            ],
        },
        "verify": None
        if facts.verify is None
        else {
            "tables": {name: asdict(table) for name, table in facts.verify.tables.items()},
            "position": facts.verify.position,
            "writes_meanwhile": facts.verify.writes_meanwhile,
            "runs": facts.verify.runs,
        },
        "cdc": asdict(facts.cdc),
        "stickiness": {
            "users": facts.stickiness.users,
            "flipped_back": facts.stickiness.flipped_back,
            "jumped_ahead": facts.stickiness.jumped_ahead,
            "examples": list(facts.stickiness.examples),
        },
        "shares": [
            {**asdict(share), "by_chance": list(users_by_chance(share.percent, share.users))}
            for share in facts.shares
        ],
        "events": [
            {"at": round(mark.at - facts.started, 2), "kind": mark.kind, "text": mark.text}
            for mark in facts.marks
        ],
        "checks": [asdict(check) for check in checks],
        "left_running": list(facts.left_running),
    }


def write(directory: Path, facts: Facts, checks: Sequence[Check]) -> tuple[Path, Path]:
    """Write both reports into `directory` and return their paths (JSON, HTML)."""
    directory.mkdir(parents=True, exist_ok=True)
    data = as_json(facts, checks)
    as_data, as_page = directory / "report.json", directory / "report.html"
    as_data.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    as_page.write_text(page(data, facts), encoding="utf-8")
    return as_data, as_page


def page(data: dict[str, Any], facts: Facts) -> str:
    """`report.html`."""
    passed = data["result"] == "passed"
    total = len(data["checks"])
    held = sum(check["passed"] for check in data["checks"])
    body = [
        "<header>",
        f'<p class="verdict {"ok" if passed else "no"}">{"Passed" if passed else "Failed"}</p>',
        "<h1>The shop moves its catalogue</h1>",
        f"<p>{html.escape(data['started'])} · {data['seconds']:g} s · {held} of {total} checks held</p>",
        "</header>",
        _tiles(data),
        "<h2>Checks</h2>",
        _table(
            ["", "promise", "what was seen"],
            [
                [
                    '<span class="ok">✓</span>' if check["passed"] else '<span class="no">✗</span>',
                    html.escape(check["name"]),
                    html.escape(check["text"])
                    + ("" if check["passed"] else f"<br><small>see {html.escape(check['where'])}</small>"),
                ]
                for check in data["checks"]
            ],
            wide=True,
        ),
        "<h2>Who answered</h2>",
        "<p>Safe requests alone: writes stay with the monolith at every percentage.</p>",
        f"<figure>{plots.split_over_time(facts)}</figure>",
        "<h2>Errors by arm</h2>",
        "<p>The service's failures were real; the monolith answered in its place.</p>",
        f"<figure>{plots.errors_over_time(facts)}</figure>",
        "<h2>Lag of the change stream</h2>",
        f"<figure>{plots.lag_over_time(facts)}</figure>",
        "<h2>Stages</h2>",
        _table(
            ["stage", "started (s)", "lasted (s)", "percent"],
            [
                [
                    html.escape(stage["name"]),
                    f"{stage['started']:.1f}",
                    f"{stage['seconds']:.1f}",
                    f"{stage['percent']:g}",
                ]
                for stage in data["stages"]
            ],
        ),
        "<h2>The rollback explains itself</h2>",
        _verdict(data),
        "<h2>Latency by arm</h2>",
        "<p>Milliseconds from the moment a request was due; a late driver would count against us.</p>",
        _table(
            ["arm", "requests", "p50", "p95", "p99"],
            [
                [
                    html.escape(arm),
                    str(data["requests"]["by_arm"].get(arm, 0)),
                    *(f"{latency[key]:.1f}" for key in ("p50", "p95", "p99")),
                ]
                for arm, latency in data["requests"]["latency_ms"].items()
            ],
        ),
        "<h2>Verified rows</h2>",
        _verified(data),
        "<h2>Events</h2>",
        _table(
            ["s", "what"],
            [[f"{event['at']:.1f}", html.escape(event["text"])] for event in data["events"]],
            wide=True,
        ),
    ]
    template = files(__package__).joinpath("report_page.html").read_text(encoding="utf-8")
    return template.replace("{{title}}", f"Demo: {data['result']}").replace("{{body}}", "\n".join(body))


def _tiles(data: dict[str, Any]) -> str:
    rollback = data["rollback"] or {}
    tiles = [
        ("canary requests to the rollback", rollback.get("canary_requests_to_detect", "-")),
        ("ms until 0 % everywhere", _whole(rollback.get("actuation_ms"))),
        ("errors seen by shoppers", data["requests"]["user_visible_errors"]),
        ("rows that differ", "-" if data["verify"] is None else _differing(data)),
        (
            "users moved without cause",
            data["stickiness"]["flipped_back"] + data["stickiness"]["jumped_ahead"],
        ),
        ("ms lag, p99", _whole(data["cdc"]["lag_ms_p99"])),
        ("requests", data["requests"]["total"]),
    ]
    return (
        '<div class="tiles">'
        + "".join(f"<div><b>{value}</b>{name}</div>" for name, value in tiles)
        + "</div>"
    )


def _differing(data: dict[str, Any]) -> int:
    return sum(table["differing"] for table in data["verify"]["tables"].values())


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _verdict(data: dict[str, Any]) -> str:
    if data["rollback"] is None:
        return "<p>There was none.</p>"
    rows = [
        [html.escape(str(key)), f"<code>{html.escape(json.dumps(value, ensure_ascii=False))}</code>"]
        for key, value in data["rollback"]["verdict"].items()
    ]
    return _table(["what the ledger holds", ""], rows, wide=True)


def _verified(data: dict[str, Any]) -> str:
    if data["verify"] is None:
        return "<p>Not compared.</p>"
    rows = [
        [html.escape(name), str(table["rows"]), str(table["differing"])]
        for name, table in data["verify"]["tables"].items()
    ]
    intro = (
        f"<p>At log position <code>{html.escape(data['verify']['position'])}</code>, while shoppers "
        f"went on "
        f"writing ({data['verify']['writes_meanwhile']} writes during {data['verify']['runs']} comparisons).</p>"
    )
    return intro + _table(["table", "rows", "differing"], rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, wide: bool = False) -> str:
    head = "".join(f"<th>{text}</th>" for text in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    kind = "wide" if wide else "numbers"
    table = f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
