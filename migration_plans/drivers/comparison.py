"""What `cdc.verify` found, as people, `--json` and the history are told it. Pure.

Values are told by their digest unless they are asked for: reports go into the history, which is kept, and rows may
be about persons.
"""

import hashlib
from typing import Any

from cdc.verify import Difference, VerifyProgress, VerifyReport
from migration_plans.drivers.change_stream import CompareProgress, Comparison


def progress_of(seen: VerifyProgress, *, values: bool) -> CompareProgress:
    """`seen` for listeners; with `values` what differs, not only that it does."""
    return CompareProgress(
        seen.table,
        seen.tables_done,
        seen.tables,
        seen.rows,
        expected=seen.expected,
        resumed=seen.resumed,
        round=seen.round,
        position=str(seen.position or ""),
        found=tuple({"table": seen.table, **_difference(each, values=values)} for each in seen.found),
        waiting=seen.waiting,
    )


def comparison(
    report: VerifyReport, parked: frozenset[tuple[str, tuple[str, ...]]], *, values: bool
) -> Comparison:
    """`report` for people. `parked`: (target table, key) of rows whose change the target refused."""
    tables: dict[str, Any] = {}
    known = 0
    for name, table in report.tables.items():
        waiting = {_key(each) for each in table.differences if (name, _key(each)) in parked}
        known += len(waiting)
        differences = []
        for each in table.differences:
            is_parked = _key(each) in waiting
            told = _difference(each, values=values)
            if is_parked:
                told["text"] += " (parked: the target refused a change, `strangler cdc parked PLAN` says why)"
            differences.append({**told, "parked": is_parked})
        tables[name] = {
            "rows": table.rows,
            "differing": table.differing,
            "parked": len(waiting),
            "complete": table.complete,
            "passed": table.passed,
            "differences": differences,
        }
    detail = {
        "position": str(report.position),
        "tables": tables,
        "applier_held_ms": round(report.applier_held_ms, 3),
        "seconds": round(report.seconds, 3),
        "rounds": report.rounds,
        "resumed": report.resumed,
    }
    return Comparison(str(report.position), report.rows, report.differing, detail, known)


def _key(each: Difference) -> tuple[str | None, ...]:
    return tuple(each.key.values())


def _difference(each: Difference, *, values: bool) -> dict[str, Any]:
    key = ", ".join(f"{name}={value}" for name, value in each.key.items())
    found: dict[str, Any] = {"key": dict(each.key), "kind": each.kind.value, "column": each.column}
    if not each.column:
        return {**found, "text": f"{key} is {each.kind.value}"}
    digests: dict[str, str | None] = {
        "source_digest": _digest(each.source),
        "target_digest": _digest(each.target),
    }
    source, target = digests.values()  # what stands in the text
    if values:
        digests |= {"source": each.source, "target": each.target}
        source, target = repr(each.source), repr(each.target)
    text = f"{key}, column {each.column}: {source} in the source, {target} in the target"
    return {**found, **digests, "text": text}


def _digest(value: str | None) -> str:
    return "NULL" if value is None else f"sha256:{hashlib.sha256(value.encode()).hexdigest()[:12]}"
