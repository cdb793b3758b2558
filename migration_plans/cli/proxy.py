"""`strangler proxy`: run the proxy in this process."""

from pathlib import Path

import click

from chassis import logs
from migration_plans.cli.exits import InTheWayError
from strangler_proxy.server import PortTakenError, run


@click.command()
@click.option(
    "--routes",
    type=click.Path(path_type=Path),
    envvar="STRANGLER_ROUTES",
    default="routes.yaml",
    show_default=True,
)
@click.option("--port", type=int, default=8000, show_default=True, help="Where shoppers come in.")
@click.option("--admin-port", type=int, default=8010, show_default=True, help="Status, outcomes, metrics.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--admin-host", default="127.0.0.1", show_default=True, help="Where the admin port listens.")
@click.option(
    "--engine",
    type=click.Choice(["python", "envoy"]),
    default="python",
    show_default=True,
    help="What carries the traffic.",
)
def proxy(
    *, routes: Path, port: int, admin_port: int, workers: int, host: str, admin_host: str, engine: str
) -> int:
    """Run the proxy in front of the backends of a routes file and follow that file, until SIGTERM.

    \b
    Example:
      strangler proxy --routes routes.yaml --port 8000 --admin-port 8010 --workers 2
    """
    logs.configure("proxy")
    try:
        return run(
            routes=routes,
            port=port,
            admin_port=admin_port,
            workers=workers,
            host=host,
            admin_host=admin_host,
            engine=engine,
        )
    except PortTakenError as error:
        raise InTheWayError(str(error)) from error
