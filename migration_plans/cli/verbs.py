"""The group `strangler`: which verbs there are and where each one lives. Importing this imports none of
them.
"""

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

import click

_HERE = "migration_plans.cli"
_VERBS: Mapping[str, str] = {
    "plan": f"{_HERE}.plan:plan",
    "doctor": f"{_HERE}.doctor:doctor",
    "start": f"{_HERE}.start:start",
    "status": f"{_HERE}.status:status",
    "history": f"{_HERE}.history:history",
    "advance": f"{_HERE}.advance:advance",
    "pause": f"{_HERE}.pause:pause",
    "resume": f"{_HERE}.resume:resume",
    "rollback": f"{_HERE}.rollback:rollback",
    "retry": f"{_HERE}.retry:retry",
    "reset": f"{_HERE}.reset:reset",
    "traffic": f"{_HERE}.traffic:traffic",
    "comparisons": f"{_HERE}.comparisons:comparisons",
    "backends": f"{_HERE}.backends:backends",
    "verify": f"{_HERE}.verify:verify",
    "cdc": f"{_HERE}.cdc:cdc",
    "proxy": f"{_HERE}.proxy:proxy",
    "controller": f"{_HERE}.controller:controller",
    "export": f"{_HERE}.export:export",
    "exporter": f"{_HERE}.exporter:exporter",
}
_HELP: Mapping[str, str] = {
    "plan": "Check a plan file, show it, print its JSON Schema.",
    "doctor": "What would be in the way, before anything starts.",
    "start": "Begin to walk a plan's stages.",
    "status": "Where a migration stands, and why.",
    "history": "What happened so far, from the ledger.",
    "advance": "Go to the next stage although its gates hold.",
    "pause": "Stay at this stage.",
    "resume": "Go on after a pause.",
    "rollback": "Send every request to the monolith, now.",
    "retry": "Try again after a rollback or a failure.",
    "reset": "Take the change stream down and begin from nothing.",
    "traffic": "Show or set the percentages of the routes file.",
    "comparisons": "How the answers of both sides compare.",
    "backends": "The instances of each backend, and how they are.",
    "verify": "Compare both sides row by row.",
    "cdc": "Run the change stream, or ask how it is.",
    "proxy": "Run the proxy.",
    "controller": "Run the controller of a plan.",
    "export": "Write the routes file for Envoy by itself, or for Kubernetes.",
    "exporter": "Serve a migration's metrics to Prometheus.",
    "up": "Start everything on this machine.",
    "down": "Stop what `up` started.",
    "demo": "Move the shop's catalogue, with a fault on the way.",
}


class LazyGroup(click.Group):
    """Loads a verb when it is called: `strangler rollback` must not wait for matplotlib."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every verb, ours first, in the order a migration uses them."""
        return [*_VERBS, *(name for name in _elsewhere() if name not in _VERBS)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb `cmd_name`, loaded."""
        place = _VERBS.get(cmd_name)
        if place is not None:
            module, _, attribute = place.partition(":")
            loaded = getattr(import_module(module), attribute)
        elif (entry := _elsewhere().get(cmd_name)) is not None:
            loaded = entry.load()
        else:
            return None
        assert isinstance(loaded, click.Command), f"{cmd_name} is not a click command"
        return loaded

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of verbs, without loading them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, _HELP.get(name, "")) for name in self.list_commands(ctx)])


def _elsewhere() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group="strangler.commands")}


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: strangler plan check catalog && strangler start catalog && strangler status -w catalog",
)
@click.version_option(package_name="strangler-toolkit", prog_name="strangler")
def strangler() -> None:
    """Move a monolith to services one table, one route and one user at a time, and always be able to go back.

    \b
    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a file was refused, 4 a gate or check says no,
    5 conflict (somebody acted first, already running, port taken), 6 something needed is unreachable.
    """
