"""`strangler traffic`: show or set the percentages of the routes file, by hand."""

import os
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import click

from migration_plans.cli.answer import show
from migration_plans.cli.exits import NeededError
from migration_plans.cli.session import confirm, json_option, yes_option
from migration_plans.proxy_admin import TOKEN_VARIABLE, ProxyAdmin, ProxyUnreachableError
from strangler_proxy.edit import set_percent
from strangler_proxy.routes import load_routes
from strangler_proxy.table import Group


@click.command()
@click.argument("changes", metavar="[GROUP=PERCENT]...", nargs=-1)
@click.option(
    "--routes",
    type=click.Path(path_type=Path),
    envvar="STRANGLER_ROUTES",
    default="routes.yaml",
    show_default=True,
)
@click.option(
    "--proxy-admin", envvar="STRANGLER_PROXY_ADMIN", default="http://127.0.0.1:8010", show_default=True
)
@yes_option
@json_option
def traffic(*, changes: tuple[str, ...], routes: Path, proxy_admin: str, yes: bool, as_json: bool) -> None:
    """Without arguments, show each group's percentage. With GROUP=PERCENT, set it in every worker.

    A controller that walks a plan takes your change in as a fact: it pauses the plan and says so. Going
    down is done at once; going up asks, for no gate has passed.

    \b
    Example:
      strangler traffic
      strangler traffic catalog=0
      strangler traffic catalog=12.5 --yes
    """
    before = load_routes(routes)
    wanted = dict(_parse(change) for change in changes)
    unknown = sorted(set(wanted) - set(before.groups))
    if unknown:
        known = ", ".join(sorted(before.groups)) or "none"
        raise click.UsageError(f"{routes} has no group {', '.join(unknown)} (it has: {known})")
    risen = [
        f"{name}: {before.groups[name].percent} % -> {percent} %"
        for name, percent in wanted.items()
        if percent > before.groups[name].percent
    ]
    if risen:
        confirm("More users go to the service, past every gate: " + "; ".join(risen) + ".", yes=yes)
    with ProxyAdmin(proxy_admin, token=os.environ.get(TOKEN_VARIABLE, "")) as proxy:
        workers: list[dict[str, Any]] = []
        if wanted:
            set_percent(routes, wanted)
            try:
                _, applied = proxy.reload()
            except ProxyUnreachableError as error:
                raise NeededError(
                    f"{routes} is written, but whether the proxy runs it is not known: {error}"
                ) from error
            workers = [
                {"id": each.worker, "version": each.version, "applied_at_ns": each.applied_at_ns}
                for each in applied
            ]
        after = load_routes(routes)
        live = _live(proxy)
    body = {
        "routes": str(routes),
        "version": after.version,
        "groups": {
            name: {
                "percent": float(group.percent),
                "live_percent": None if live is None or name not in live else float(live[name]),
                "backend": group.backend,
                "owner": group.owner,
            }
            for name, group in after.groups.items()
        },
        "workers": workers,
    }
    lines = [
        f"{name}: {_share(group, after.default)}"
        + (" (proxy not reachable: not known whether it runs)" if live is None else "")
        + (
            f" (but the proxy runs {live[name]} %)"
            if live is not None and live.get(name) != group.percent
            else ""
        )
        for name, group in after.groups.items()
    ]
    show(body, "\n".join(lines) or f"{routes} has no groups", as_json=as_json)


def _share(group: Group, default: str) -> str:
    if group.backend == default:
        return "moves nothing"
    return f"{group.percent} % of users to {group.backend}"


def _parse(change: str) -> tuple[str, Decimal]:
    name, equals, text = change.partition("=")
    try:
        percent = Decimal(text.strip().removesuffix("%"))
    except InvalidOperation:
        percent = Decimal(-1)
    if not equals or not 0 <= percent <= 100 or percent != round(percent, 2):
        raise click.UsageError(
            f"{change!r} is not GROUP=PERCENT with a percentage from 0 to 100 in steps of 0.01"
        )
    return name, percent


def _live(proxy: ProxyAdmin) -> dict[str, Decimal] | None:
    try:
        return dict(proxy.status().percents)
    except ProxyUnreachableError:
        return None
