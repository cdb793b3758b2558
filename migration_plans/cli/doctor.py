"""`strangler doctor`: what would be in the way of a plan, before anything starts."""

import click

from cdc.doctor.examine import UnknownRuleError
from migration_plans.cli.answer import show
from migration_plans.cli.exits import NeededError, SaysNoError
from migration_plans.cli.session import json_option, with_plan
from migration_plans.drivers.cdc_stream import CdcStream
from migration_plans.plan import Plan


@click.command()
@with_plan
@click.option("--only", multiple=True, metavar="ID", help="Check this rule only (repeatable).")
@json_option
def doctor(*, plan: Plan, only: tuple[str, ...], as_json: bool) -> None:
    """Ask both databases of PLAN what would be in the way: place, reason and the SQL that repairs it.

    Reads only. docs/reference/doctor.md lists every rule.

    \b
    Example:
      strangler doctor catalog
      strangler doctor catalog --only wal-level --only target-not-empty --json

    Exit code 4: there are blockers. 6: none, but something could not be checked.
    """
    try:
        findings = CdcStream(plan).examine(only=only)
    except UnknownRuleError as error:
        raise click.UsageError(str(error)) from error
    counts = {
        severity: sum(finding["severity"] == severity for finding in findings)
        for severity in ("error", "warning", "unknown")
    }
    lines: list[str] = []
    for finding in sorted(findings, key=lambda each: list(counts).index(each["severity"])):
        lines.append(f"{finding['text']}  [{finding['id']}]")
        lines.append(f"    where: {finding['where']}" if finding["where"] else "")
        lines.append(f"    why:   {finding['why']}" if finding["why"] else "")
        lines.append(f"    SQL:   {finding['repair']};" if finding["repair"] else "")
    summary = f"{counts['error']} blockers, {counts['warning']} warnings, {counts['unknown']} not checked"
    body = {"plan": plan.name, "blockers": counts["error"], "warnings": counts["warning"],
            "not_checked": counts["unknown"], "findings": findings}  # fmt: skip
    show(body, "\n".join([*filter(None, lines), f"{plan.name}: {summary}"]), as_json=as_json)
    if counts["error"]:
        raise SaysNoError(f"{summary}; repair the blockers before anything moves; nothing was changed")
    if counts["unknown"]:
        raise NeededError(f"{summary}; what could not be checked is not known to be well")
