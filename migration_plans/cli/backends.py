"""`strangler backends`: every backend's instances, as the proxy sees them now."""

from typing import Any

import click

from migration_plans.cli.answer import show
from migration_plans.cli.exits import ExitCode
from migration_plans.cli.session import json_option
from migration_plans.proxy_admin import ProxyAdmin


@click.command()
@click.argument("names", metavar="[BACKEND]...", nargs=-1)
@click.option(
    "--proxy-admin", envvar="STRANGLER_PROXY_ADMIN", default="http://127.0.0.1:8010", show_default=True
)
@click.option("--check", is_flag=True, help="Exit code 4 when a backend has no instance that takes requests.")
@json_option
def backends(*, names: tuple[str, ...], proxy_admin: str, check: bool, as_json: bool) -> int:
    """Show the instances of each backend: health, breaker, requests under way.

    What the file, DNS or the environment says of them, and what is wrong with it, is shown beside.

    \b
    Example:
      strangler backends
      strangler backends catalog --check
    """
    with ProxyAdmin(proxy_admin) as proxy:
        raw = proxy.status().raw or {}
    known: dict[str, dict[str, Any]] = raw["backends"]
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise click.UsageError(f"no backend {', '.join(unknown)} (there are: {', '.join(sorted(known))})")
    chosen = {name: backend for name, backend in known.items() if not names or name in names}
    show({"backends": chosen}, "\n".join(_lines(chosen)), as_json=as_json)
    out = [name for name, backend in chosen.items() if not _serves(backend)]
    if check and out:
        click.echo(f"strangler: no instance takes requests: {', '.join(out)}", err=True)
        return ExitCode.GATE_SAYS_NO
    return ExitCode.DONE


def _serves(backend: dict[str, Any]) -> bool:
    instances = backend.get("instances")
    if instances is None:
        return bool(backend["breaker"] != "open")
    return any(instance["up"] and instance["breaker"] != "open" for instance in instances)


def _lines(chosen: dict[str, dict[str, Any]]) -> list[str]:
    lines = []
    for name, backend in chosen.items():
        instances = backend.get("instances")
        if instances is None:
            lines.append(f"{name}: {backend['url']}, breaker {backend['breaker']}")
            continue
        up = sum(instance["up"] for instance in instances)
        lines.append(f"{name}: {up} of {len(instances)} instances up, breaker {backend['breaker']}")
        if backend.get("fault"):
            lines.append(f"  the list cannot be had, the last one stays: {backend['fault']}")
        lines.extend(f"  {_line(instance)}" for instance in instances)
    return lines


def _line(instance: dict[str, Any]) -> str:
    health = instance["health"] or "not checked"
    if instance["reason"]:
        health += f" ({instance['reason']})"
    return (
        f"{instance['url']}: {health}, breaker {instance['breaker']}, {instance['pending']} under way, "
        f"{instance['requests']} so far"
    )
