"""The reference page of the doctor, written from the registry."""

from cdc.doctor.registry import CHECKS, RULES
from cdc.findings import Severity

_SEVERITIES = {
    Severity.ERROR: "blocker",
    Severity.WARNING: "warning",
    Severity.UNKNOWN: "not checked",
}
_INTRODUCTION = """\
# What `strangler doctor` looks for

Written by `python -m migration_plans.cli.reference` from the checks themselves; do not edit.

`strangler doctor` asks both databases of a plan, before anything starts, what would be in the way. Each
finding has an id that never changes its meaning, the place (database, schema, table, column; line of the
plan), the reason why it matters, and where a statement repairs it, that statement. It is an administrator's
decision to run it: nothing is repaired by the doctor.

It reads only. Sessions are read-only, except that the mapping's expressions are tried in a temporary table
of the target, in a transaction that is rolled back. A statement takes 5 s at most. Values are looked at in
the first 10 000 rows of a table. What could not be checked (a right that is missing, a timeout, a server out
of reach) is told as *not checked*, never as a pass.

Rows, and the transactions of the application, are read as the owner of the tables (`owner_dsn_env` of the
plan); without that variable as the stream's role. Exit code 4: there are blockers. 6: no blocker, but
something could not be checked. Stage `prepare` refuses on the same blockers, those excepted that it mends by
itself (marked *prepare*).

Not found by it: how much room the source's disk has (SQL cannot see it), and rules of `pg_hba.conf` (logical
replication needs no line of its own there: whoever may connect to the database may read its log).

| id | severity | finds | why it matters | repair |
|---|---|---|---|---|
"""


def page() -> str:
    """docs/reference/doctor.md."""
    mended = {check.rule.id for check in CHECKS if check.mended_by_prepare}
    rows = [
        f"| `{rule.id}` | {_SEVERITIES[rule.severity]}{', *prepare*' if rule.id in mended else ''} "
        f"| {_cell(rule.finds)} | {_cell(rule.why)} | {_cell(rule.repair)} |\n"
        for rule in RULES
    ]
    return _INTRODUCTION + "".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
