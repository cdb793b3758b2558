"""`strangler plan`: check a plan file, show it, print its JSON Schema, draw its stage table."""

import json
from typing import Any

import click

from chassis.problems import InvalidFileError
from migration_plans.cli.answer import show
from migration_plans.cli.exits import SaysNoError
from migration_plans.cli.session import Session, json_option, with_plan
from migration_plans.drivers.routes import RoutesFile
from migration_plans.plan import MissingVariableError, Plan, json_schema
from migration_plans.quantities import format_bytes, format_seconds
from migration_plans.stages import KINDS, markdown, mermaid


@click.group()
def plan() -> None:
    """Check a plan file, show it, print its JSON Schema.

    \b
    Example:
      strangler plan check catalog
      strangler plan check my-plan.yaml --offline --json
    """


@plan.command()
@with_plan
@click.option("--offline", is_flag=True, help="Read the files only; ask no database.")
@json_option
def check(*, plan: Plan, offline: bool, as_json: bool) -> None:
    """Read PLAN, its routes file, and ask both databases whether the mapping works. Changes nothing.

    \b
    Example:
      strangler plan check catalog
      strangler plan check catalog --set gates.soak=5s --offline

    Exit code 3: the plan or the routes file is refused. 4: the databases say no.
    """
    try:
        fact = RoutesFile(plan.routes, plan.group).read()
    except InvalidFileError as error:
        missing = all(problem.field == f"groups.{plan.group}" for problem in error.problems)
        extra = [plan.problem(("group",), f"the routes file has no group {plan.group!r}")] if missing else []
        raise InvalidFileError([*extra, *error.problems]) from error
    findings: list[dict[str, Any]] = []
    unchecked = "asked for with --offline" if offline else ""
    if not offline:
        try:
            with Session.of(plan) as session:
                findings = session.world.stream.check()
        except MissingVariableError as error:
            unchecked = str(error)
    body = {
        "plan": plan.name,
        "file": plan.file,
        "digest": plan.digest,
        "routes": str(plan.routes),
        "percent": float(fact.percent),
        "tables": len(plan.mapping.tables),
        "stages": list(plan.stage_names),
        "findings": findings,
        "databases_checked": not unchecked,
        "not_checked_because": unchecked or None,
    }
    lines = [
        f"{plan.file}: {len(plan.mapping.tables)} tables, stages {', '.join(plan.stage_names)}",
        f"{plan.routes}: group {plan.group} stands at {fact.percent} %",
        *(finding["text"] for finding in findings),
        f"databases: not checked ({unchecked})" if unchecked else "databases: checked",
    ]
    show(body, "\n".join(lines), as_json=as_json)
    errors = [finding for finding in findings if finding["severity"] == "error"]
    if errors:
        raise SaysNoError(
            f"{len(errors)} of these must be repaired before anything moves; nothing was changed"
        )


@plan.command(name="show")
@with_plan
@json_option
def show_plan(*, plan: Plan, as_json: bool) -> None:
    """Print PLAN as the controller will run it, overrides included.

    \b
    Example:
      strangler plan show catalog --set gates.soak=5s
    """
    stages = [
        {
            "name": planned.stage.name,
            "percent": float(planned.stage.percent),
            "gates": [gate.value for gate in KINDS[planned.stage.kind].gates],
            "soak_s": planned.policy.soak,
            "min_requests": planned.policy.min_requests,
            "max_lag_s": planned.policy.max_lag,
            "max_lag_bytes": planned.policy.max_lag_bytes,
            "verify": planned.policy.verify,
        }
        for planned in plan.stages
    ]
    limits = plan.limits
    body = {
        "plan": plan.name,
        "file": plan.file,
        "digest": plan.digest,
        "group": plan.group,
        "routes": str(plan.routes),
        "proxy_admin": plan.proxy_admin,
        "tables": [str(table.source) for table in plan.mapping.tables],
        "stages": stages,
        "rollback": {name: getattr(limits, name) for name in type(limits).__slots__},
        "retry": {name: getattr(plan.retry, name) for name in type(plan.retry).__slots__},
        "alerts": [target.name for target in plan.alerts],
    }
    lines = [
        f"plan {plan.name} ({plan.file}, digest {plan.digest})",
        f"moves group {plan.group} of {plan.routes}",
    ]
    for planned in plan.stages:
        kind, policy = KINDS[planned.stage.kind], planned.policy
        lines.append(f"  {planned.stage.name:<10} {kind.start}")
        lines.append(f"  {'':<10} gates: {', '.join(kind.gates)}; undo: {kind.undo}")
        if kind.carries_traffic:
            lines.append(
                f"  {'':<10} soak {format_seconds(policy.soak)}, {policy.min_requests} requests, "
                f"lag at most {format_seconds(policy.max_lag)} and {format_bytes(policy.max_lag_bytes)}"
            )
    lines.append(
        f"rolls back above {limits.error_rate:.0%} of {limits.min_requests} requests, or when the sequential "
        f"test (tolerates {limits.tolerate:.0%}, alpha {limits.alpha}) says so"
    )
    show(body, "\n".join(lines), as_json=as_json)


@plan.command()
def schema() -> None:
    """Print the JSON Schema of plan files, for editors.

    \b
    Example:
      strangler plan schema > docs/reference/plan.schema.json
    """
    click.echo(json.dumps(json_schema(), indent=2))


@plan.command()
@click.option("--markdown", "as_markdown", is_flag=True, help="The whole reference page.")
def stages(*, as_markdown: bool) -> None:
    """Draw the state table as a Mermaid diagram, or write its reference page.

    \b
    Example:
      strangler plan stages --markdown > docs/reference/stages.md
    """
    click.echo(markdown() if as_markdown else mermaid(), nl=not as_markdown)
