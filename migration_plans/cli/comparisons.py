"""`strangler comparisons`: what comparing both sides has shown so far."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import click

from migration_plans.cli.answer import show
from migration_plans.cli.session import json_option
from migration_plans.proxy_admin import TOKEN_VARIABLE, ProxyAdmin

_ORDER = ("equal", "noise", "stale", "representation", "real", "candidate_error", "not_compared")
_EXAMPLES = 10


@click.command()
@click.argument("group", required=False)
@click.option(
    "--proxy-admin", envvar="STRANGLER_PROXY_ADMIN", default="http://127.0.0.1:8010", show_default=True
)
@json_option
def comparisons(*, group: str | None, proxy_admin: str, as_json: bool) -> None:
    """Show how the answers of both sides compare, for GROUP or for every group with a shadow.

    Counts by verdict, what was not compared and why, the bound on the rate of real differences, and the latest
    examples (values are told by type, length and hash unless the routes file says `examples: full`).

    \b
    Example:
      strangler comparisons
      strangler comparisons catalog --json
    """
    with ProxyAdmin(proxy_admin, token=os.environ.get(TOKEN_VARIABLE, "")) as proxy:
        body = dict(proxy.comparisons())
    groups: Mapping[str, Any] = body["groups"]
    if group is not None:
        if group not in groups:
            known = ", ".join(sorted(groups)) or "none"
            raise click.UsageError(f"no group {group!r} is compared (compared: {known})")
        body["groups"] = groups = {group: groups[group]}
    lines = [line for name, found in groups.items() for line in _lines(name, found)]
    show(body, "\n".join(lines) or "no group of the routes file has a shadow", as_json=as_json)


def _lines(name: str, found: Mapping[str, Any]) -> Iterator[str]:
    yield f"{name}: {_verdicts(found)}"
    bound = found["real_rate_at_most"]
    if bound is None:
        yield "  nothing compared yet"
    else:
        yield f"  {found['compared']} compared: real differences in at most {bound:.2%} of requests (95 %)"
    for template, counts in found["templates"].items():
        yield f"  {template}: {_verdicts(counts)}"
    for title, key in (
        ("not compared", "not_compared"),
        ("candidate errors", "candidate_errors"),
        ("dropped", "dropped"),
    ):
        for reason, count in sorted(found[key].items(), key=lambda item: -item[1]):
            yield f"  {title}: {count} ({reason})"
    for example in found["examples"][:_EXAMPLES]:
        yield f"  {example['verdict']} in {example['template']} {example['path']}: {_told(example)}"
    rest = len(found["examples"]) - _EXAMPLES
    if rest > 0:
        yield f"  and {rest} more examples: see --json"


def _verdicts(found: Mapping[str, Any]) -> str:
    verdicts = found["verdicts"]
    told = [f"{verdicts[verdict]} {verdict.replace('_', ' ')}" for verdict in _ORDER if verdicts[verdict]]
    return ", ".join(told) or "nothing"


def _told(example: Mapping[str, Any]) -> str:
    values = f"{example['control']} != {example['candidate']}" if "control" in example else ""
    notes = [text for text in (example["what"], values, example["note"]) if text]
    return f"{', '.join(notes)} (request {example['request_id']})"
