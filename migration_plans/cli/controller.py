"""`strangler controller`: walk a plan until SIGTERM."""

import asyncio
import logging
import signal

import click

from chassis import logs
from migration_plans.cli.session import Session, with_session


@click.command()
@with_session
def controller(*, session: Session) -> None:
    """Walk PLAN's stages once it is started, watch its service, roll it back when it fails. Ends on SIGTERM.

    \b
    Example:
      strangler controller catalog
      strangler controller catalog --set gates.soak=5s --set gates.min_requests=50

    Killed at any point and started again it carries on. A second one for the same plan ends with exit code 5.
    """
    logs.configure("controller")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would write a line for every look at the proxy
    asyncio.run(_run(session))


async def _run(session: Session) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    walker = session.controller(actor="controller")
    try:
        await walker.run(stop)
    finally:
        walker.side_ledger.close()
