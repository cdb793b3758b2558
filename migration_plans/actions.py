"""The world, observed and changed: what reconcile.py asks for is done here, and only here."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from chassis.problems import InvalidFileError
from migration_plans.drivers.change_stream import ChangeStream
from migration_plans.drivers.probe import Prober
from migration_plans.drivers.routes import RoutesFact
from migration_plans.proxy_admin import ProxyStatus, ProxyUnreachableError, Worker
from migration_plans.reconcile import Action, Observed, Prepare, Reload, ReplaceRefused, SetPercent

PUT_ASIDE = "routes_put_aside"
"""The ledger's event for a refused routes file that stood in the way of a rollback."""


class Routes(Protocol):
    """The routes file, or a stand-in."""

    def read(self) -> RoutesFact:
        """What it says now."""
        ...

    def set_percent(self, percent: Decimal) -> str:
        """Change the percentage; returns the new version."""
        ...

    def replace_refused(self, running: bytes) -> str:
        """Put the refused file aside, write `running` with percentage 0. The name it was put aside as, or ""."""
        ...

    def by_hand(self) -> str:
        """How a person sets 0 % when nothing else can."""
        ...


class Proxy(Protocol):
    """The proxy's admin port, or a stand-in."""

    def status(self) -> ProxyStatus:
        """What its workers run."""
        ...

    def reload(self) -> tuple[str, tuple[Worker, ...]]:
        """Have every worker run the routes file as it is now."""
        ...

    def running_routes(self) -> bytes:
        """The text of the routes in use."""
        ...


@dataclass(frozen=True, slots=True)
class World:
    """Everything a migration touches."""

    routes: Routes
    proxy: Proxy
    stream: ChangeStream
    prober: Prober


@dataclass(frozen=True, slots=True)
class Sight:
    """An observation, and what could not be seen. `live_percent` is the group's, as all workers run it."""

    observed: Observed
    live_percent: Decimal | None
    file_problem: str
    proxy_problem: str


def look(world: World, group: str) -> Sight:
    """Observe routes file and proxy. What cannot be seen is reported in the result, not raised."""
    fact, file_problem = None, ""
    try:
        fact = world.routes.read()
    except InvalidFileError as error:
        file_problem = str(error)
    status, proxy_problem = None, ""
    try:
        status = world.proxy.status()
    except ProxyUnreachableError as error:
        proxy_problem = str(error)
    version = fact.version if fact else ""
    workers = status.workers if status else ()
    live = [worker for worker in workers if worker.version == version]
    everywhere = bool(workers) and len(live) == len(workers)
    observed = Observed(
        file_percent=fact.percent if fact else None,
        file_version=version,
        workers=len(workers),
        workers_live=len(live),
        live_since_ns=max(worker.applied_at_ns for worker in live) if everywhere else None,
    )
    return Sight(
        observed=observed,
        live_percent=status.percents.get(group) if status and everywhere else None,
        file_problem=file_problem,
        proxy_problem=proxy_problem,
    )


def perform(world: World, action: Action) -> str:
    """Do one action; doing it twice is the same as doing it once.

    Returns the name that a refused routes file was put aside as, "" for none. Raises InvalidFileError,
    ReloadRefusedError, ProxyUnreachableError, PreflightRefusedError or ChangeStreamError.
    """
    match action:
        case SetPercent(percent=percent):
            world.routes.set_percent(percent)
        case ReplaceRefused():
            try:
                running = world.proxy.running_routes()
            except ProxyUnreachableError as error:
                raise ProxyUnreachableError(
                    f"{world.routes.by_hand()} (asking the proxy: {error})"
                ) from error
            return world.routes.replace_refused(running)
        case Reload():
            world.proxy.reload()
        case Prepare():
            world.stream.prepare()
    return ""
