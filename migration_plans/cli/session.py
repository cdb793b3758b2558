"""What verbs share: their options, and the wiring of plan, ledger and world from those options and the
environment.
"""

import functools
import getpass
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from chassis.problems import InvalidFileError, Problem
from migration_plans.actions import World
from migration_plans.controller import Controller
from migration_plans.drivers.cdc_stream import CdcStream
from migration_plans.drivers.probe import HttpProber
from migration_plans.drivers.routes import RoutesFile
from migration_plans.ledger import Ledger
from migration_plans.plan import Plan, load_plan, variable
from migration_plans.proxy_admin import TOKEN_VARIABLE, ProxyAdmin
from migration_plans.record import Record

R = TypeVar("R")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON of a documented shape.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


@dataclass(frozen=True, slots=True)
class Session:
    """A loaded plan and the doors to everything it names. Close it."""

    plan: Plan
    ledger: Ledger
    world: World
    proxy: ProxyAdmin
    actor: str

    @classmethod
    def of(cls, plan: Plan) -> "Session":
        """Doors for `plan`, none of them opened yet. Raises MissingVariableError."""
        ledger = Ledger(variable(plan.ledger_env, what="the ledger"))
        proxy = ProxyAdmin(plan.proxy_admin, token=os.environ.get(TOKEN_VARIABLE, ""))
        routes = RoutesFile(plan.routes, plan.group)
        world = World(routes, proxy, CdcStream(plan), LazyProber(routes))
        return cls(plan, ledger, world, proxy, actor())

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.ledger.close()
        self.proxy.close()
        self.world.stream.close()

    def record(self) -> Record | None:
        """Where the migration stands; None when it was never started."""
        return self.ledger.read(self.plan.name)

    def controller(self, *, actor: str | None = None) -> Controller:
        """A controller over the same doors."""
        return Controller(
            plan=self.plan,
            ledger=self.ledger,
            side_ledger=Ledger(variable(self.plan.ledger_env, what="the ledger")),
            world=self.world,
            outcomes=self.proxy,
            actor=actor or self.actor,
        )


@dataclass(frozen=True, slots=True)
class LazyProber:
    """Asks the backend that the routes file names at the time of asking."""

    routes: RoutesFile

    def round(self) -> str:
        """ "" when every answer was good, else what was wrong."""
        try:
            fact = self.routes.read()
        except InvalidFileError as error:
            return str(error)
        return HttpProber(fact.backend_url, fact.paths).round()


def actor() -> str:
    """Who is acting: STRANGLER_ACTOR, else user@host."""
    named = os.environ.get("STRANGLER_ACTOR")
    if named:
        return named
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def find_plan(given: str | None) -> Path:
    """The plan file named by `given`: a path, or the name of a plan that ships. Raises InvalidFileError."""
    shipped = Path(__file__).parent.parent / "plans"
    if given is None:
        names = sorted(shipped.glob("*.yaml"))
        if len(names) == 1:
            return names[0]
        raise click.UsageError("name a plan, or set STRANGLER_PLAN")
    path = Path(given)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return path
    named = shipped / f"{given}.yaml"
    if named.exists():
        return named
    known = ", ".join(sorted(file.stem for file in shipped.glob("*.yaml")))
    problem = Problem(
        given, 0, 0, "", "there is no such plan", f"give the path of a plan file, or one of: {known}"
    )
    raise InvalidFileError([problem])


def with_plan(verb: Callable[..., R]) -> Callable[..., R]:
    """Adds PLAN and the options that change it; the verb gets `plan`."""

    @click.argument("plan_name", metavar="[PLAN]", required=False, envvar="STRANGLER_PLAN")
    @click.option(
        "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Override one value, as gates.soak=5s."
    )
    @click.option(
        "--override", type=click.Path(path_type=Path), help="A second plan file laid over the first."
    )
    @click.option(
        "--routes", type=click.Path(path_type=Path), envvar="STRANGLER_ROUTES", help="The routes file."
    )
    @click.option("--proxy-admin", envvar="STRANGLER_PROXY_ADMIN", help="URL of the proxy's admin port.")
    @functools.wraps(verb)
    def wrapped(
        *args: Any,
        plan_name: str | None,
        settings: tuple[str, ...],
        override: Path | None,
        routes: Path | None,
        proxy_admin: str | None,
        **kwargs: Any,
    ) -> R:
        plan = load_plan(
            find_plan(plan_name), override=override, settings=settings, routes=routes, proxy_admin=proxy_admin
        )
        return verb(*args, plan=plan, **kwargs)

    return wrapped


def with_session(verb: Callable[..., R]) -> Callable[..., R]:
    """Like `with_plan`, but the verb gets an open `session`."""

    @with_plan
    @functools.wraps(verb)
    def wrapped(*args: Any, plan: Plan, **kwargs: Any) -> R:
        with Session.of(plan) as session:
            return verb(*args, session=session, **kwargs)

    return wrapped


def confirm(what: str, *, yes: bool) -> None:
    """Say what will be done and ask. Raises click.Abort when the answer is no or nobody can answer."""
    click.echo(what, err=True)
    if not yes:
        click.confirm("Go on?", abort=True, err=True)
