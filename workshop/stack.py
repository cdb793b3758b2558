"""The embedded stack: what runs, in which order, with which rights.

    PostgreSQL ─► databases, roles ─┬► shop: migrate, seed ──► monolith ─┬► proxy ─► change stream, controller
                                    └► catalogue: migrate ───► catalogue ┘

`bring_up` does it on a `Supervisor`; ending it is the supervisor's. The shop is PostgreSQL, monolith and proxy:
only these are essential, the rest may crash for good without taking it along. Every process gets only the variables it
needs: the catalogue service never sees the shop's password. Ports are checked before anything starts.
"""

import asyncio
import os
import shlex
import shutil
import sys
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import psycopg

from cdc.connect import PASSWORD_VARIABLE
from migration_plans.plan import load_plan
from strangler_proxy.edit import set_percent
from strangler_proxy.routes import load_routes
from workshop import databases, secrets_file
from workshop.kafka import JARS, ConnectWorker, KafkaBroker, KafkaError, jars
from workshop.layout import Layout, Ports, Seed
from workshop.postgres import EmbeddedPostgres, PostgresError
from workshop.probe import Probe, has_spoken, http_ready
from workshop.routes_copy import derive_routes
from workshop.supervisor import Program, StackError, Supervisor

_EXTERNAL = "postgres"
_SECRETS = (
    *databases.ROLES,
    "shop_secret_key",
    "cookie_secret",
    "admin_token",
    "payment_webhook_secret",
    "demo_password",
)


@dataclass(frozen=True, slots=True)
class StackConfig:
    """What to bring up. `postgres_dsn` names a server of yours, None means the embedded one.

    `plan_settings` are `--set` options for the controller; `durable=False` lets the embedded server skip
    fsync. `engine` carries the traffic: `python` or `envoy`; `cdc` the changes: `slot` or `kafka`. Where the ports or
    the engine ask for it, the stack runs on a copy of `routes` fitted to them.
    """

    layout: Layout
    ports: Ports
    seed: Seed
    routes: Path
    plan: Path
    plan_settings: tuple[str, ...] = ()
    postgres_dsn: str | None = None
    durable: bool = True
    proxy_workers: int = 2
    engine: str = "python"
    cdc: str = "slot"
    expose_arm: bool = False
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Stack:
    """A running stack: addresses, the environment that commands of `strangler` need, the shop's logins."""

    config: StackConfig
    admin_dsn: str
    routes: Path
    environment: Mapping[str, str]
    demo_password: str

    @property
    def shop_url(self) -> str:
        """Where shoppers go: the proxy."""
        return f"http://127.0.0.1:{self.config.ports.proxy}"

    @property
    def admin_url(self) -> str:
        """The proxy's admin port."""
        return f"http://127.0.0.1:{self.config.ports.admin}"

    def urls(self) -> dict[str, str]:
        """What a person may open, by name."""
        ports = self.config.ports
        return {
            "shop": self.shop_url + "/",
            "shop API": self.shop_url + "/api/products/",
            "proxy admin": self.admin_url + "/admin/status",
            "monolith": f"http://127.0.0.1:{ports.monolith}/",
            "catalogue": f"http://127.0.0.1:{ports.catalog}/api/products/",
        }


class JavaUnit:
    """The broker or Connect as something the supervisor keeps running."""

    deadline = 90.0
    essential = True

    def __init__(self, server: KafkaBroker | ConnectWorker) -> None:
        self.server = server

    @property
    def name(self) -> str:
        """`kafka` or `connect`."""
        return self.server.name

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.server.log

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self.server.pid

    def spawn(self) -> None:
        """Start it. Raises StackError."""
        try:
            self.server.spawn()
        except KafkaError as error:
            raise StackError(str(error), remedy=f"read {self.log}") from error

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self.server.exit_code

    async def not_ready(self) -> str | None:
        """Why it cannot serve yet."""
        return await asyncio.to_thread(self.server.not_ready)

    async def stop(self) -> None:
        """In good order."""
        await asyncio.to_thread(self.server.stop)


class PostgresUnit:
    """The embedded server as something the supervisor keeps running."""

    name = "postgres"
    deadline = 30.0
    essential = True

    def __init__(self, server: EmbeddedPostgres) -> None:
        self.server = server
        self._started = False

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.server.log

    @property
    def pid(self) -> int | None:
        """Process id of the postmaster."""
        return self.server.pid

    def spawn(self) -> None:
        """Start it (it is ready on return). Raises StackError with the log's last lines otherwise."""
        self._started = True
        try:
            self.server.start()
        except PostgresError as error:
            raise StackError(str(error), remedy=f"read {self.log}") from error

    def exit_code(self) -> int | None:
        """None while it runs."""
        if not self._started or self.server.pid is not None:
            return None
        return self.server.exit_code or 0

    async def not_ready(self) -> str | None:
        """`spawn` returns when it is ready."""
        return None

    async def stop(self) -> None:
        """Fast shutdown; open sessions are cut."""
        await asyncio.to_thread(self.server.stop)


async def bring_up(config: StackConfig, supervisor: Supervisor) -> Stack:
    """Start everything and return when all of it is ready.

    Raises PortsTakenError and InvalidFileError before anything has started, StackError or
    ProgramFailedError later; what was
    started by then is the supervisor's to stop.
    """
    ports = config.ports.as_dict()
    if config.postgres_dsn is not None:
        del ports[_EXTERNAL]
    supervisor.claim_ports(ports)
    groups = load_routes(config.routes).groups
    load_plan(config.plan, settings=config.plan_settings)
    secrets = secrets_file.ensure(config.layout.secrets, _SECRETS)
    admin_dsn, host, port = await _postgres(config, supervisor)
    if config.fresh and config.postgres_dsn is not None:
        await asyncio.to_thread(databases.drop, admin_dsn)
    await asyncio.to_thread(databases.ensure, admin_dsn, secrets)
    supervisor.say("databases", "ready", "databases and roles are in place")

    routes = config.routes
    if config.expose_arm or config.ports != Ports() or config.engine != "python":
        routes = config.layout.routes
        left_out = derive_routes(
            config.routes, routes, config.ports, expose=config.expose_arm, engine=config.engine
        )
        if left_out:
            supervisor.say("routes", "fitted", f"left out, {config.engine} has it not: {', '.join(left_out)}")
    elif config.fresh and any(group.percent for group in groups.values()):
        moved = [name for name, group in groups.items() if group.percent]
        set_percent(routes, dict.fromkeys(moved, Decimal(0)))  # the data it spoke of are gone
    kafka = await _kafka(config, supervisor, secrets) if config.cdc == "kafka" else None
    stack = Stack(
        config=config,
        admin_dsn=admin_dsn,
        routes=routes,
        environment={
            **_environment(config, secrets, routes=routes, host=host, port=port),
            **(kafka.environment() if kafka else {}),
        },
        demo_password=secrets["demo_password"],
    )
    _write_environment(config.layout.environment, stack.environment)
    programs = _Programs(stack, secrets)
    await _all(
        _shop(programs, supervisor),
        _catalogue(programs, supervisor),
        *([kafka.start(supervisor)] if kafka else []),
    )
    await supervisor.start(programs.proxy())
    await _all(supervisor.start(programs.change_stream()), supervisor.start(programs.controller()))
    return stack


async def _postgres(config: StackConfig, supervisor: Supervisor) -> tuple[str, str, int]:
    """Administrator DSN, host and port of the server; starts the embedded one when none was named."""
    if config.postgres_dsn is None:
        server = EmbeddedPostgres(
            config.layout.postgres,
            port=config.ports.postgres,
            durable=config.durable,
            log=config.layout.log("postgres"),
        )
        if config.fresh:
            server.destroy()
        await supervisor.start(PostgresUnit(server))
        return server.dsn(), "127.0.0.1", server.port
    try:
        info = psycopg.conninfo.conninfo_to_dict(config.postgres_dsn)
    except psycopg.ProgrammingError as error:
        raise StackError(
            f"the PostgreSQL DSN cannot be read: {error}",
            remedy="it looks like postgresql://user:password@host/db",
        ) from error
    host = str(info.get("host") or "127.0.0.1")
    if host.startswith("/"):  # a Unix socket directory: the roles come over TCP, with their passwords
        host = "127.0.0.1"
    return config.postgres_dsn, host, int(info.get("port") or 5432)


@dataclass(frozen=True, slots=True)
class _Kafka:
    """Broker and Connect, known before they run."""

    broker: KafkaBroker
    worker: ConnectWorker

    def environment(self) -> Mapping[str, str]:
        """The variables by which the change stream finds them."""
        return {"STRANGLER_KAFKA": self.broker.address, "STRANGLER_CONNECT": self.worker.url}

    async def start(self, supervisor: Supervisor) -> None:
        await supervisor.start(JavaUnit(self.broker))
        await supervisor.start(JavaUnit(self.worker))


async def _kafka(config: StackConfig, supervisor: Supervisor, secrets: Mapping[str, str]) -> _Kafka:
    """Fetch the jars and choose the ports; nothing is started. Raises StackError."""
    directory = config.layout.var / "kafka"
    supervisor.say("kafka", "fetching", "Kafka and Debezium are fetched by Maven, where they are not yet")
    try:
        found = await asyncio.to_thread(jars, JARS)
    except KafkaError as error:
        raise StackError(str(error)) from error
    if config.fresh:
        for name in ("kafka", "connect"):
            await asyncio.to_thread(shutil.rmtree, directory / name, ignore_errors=True)
    broker = KafkaBroker(directory / "kafka", found, quick=True)
    worker = ConnectWorker(
        directory / "connect",
        found,
        broker=broker.address,
        environment={PASSWORD_VARIABLE: secrets["cdc"]},
        quick=True,
    )
    return _Kafka(broker, worker)


async def _shop(programs: "_Programs", supervisor: Supervisor) -> None:
    await supervisor.run_to_end(programs.manage("shop-migrate", "migrate", "--no-input", "-v", "0"))
    if await asyncio.to_thread(_shop_is_empty, programs.stack.environment["SHOP_DATABASE_URL"]):
        seed = programs.stack.config.seed
        amounts = {"products": seed.products, "users": seed.users, "orders": seed.orders, "seed": seed.seed}
        options = [text for name, amount in amounts.items() for text in (f"--{name}", str(amount))]
        await supervisor.run_to_end(programs.manage("shop-seed", "seed_shop", *options))
    await supervisor.start(programs.monolith())


async def _catalogue(programs: "_Programs", supervisor: Supervisor) -> None:
    await supervisor.run_to_end(programs.catalogue_migrate())
    await supervisor.start(programs.catalogue())


def _shop_is_empty(dsn: str) -> bool:
    with psycopg.connect(dsn, connect_timeout=5) as connection:
        return connection.execute("SELECT FROM catalog_product LIMIT 1").fetchone() is None


async def _all(*parts: Awaitable[None]) -> None:
    """Run `parts` side by side; the first failure cancels the others and is raised as it is."""

    async def run(part: Awaitable[None]) -> None:
        await part

    try:
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(run(part))
    except* StackError as failures:
        raise failures.exceptions[0] from None


class _Programs:
    """The stack's processes as values. Each gets the variables of its own and no others'."""

    def __init__(self, stack: Stack, secrets: Mapping[str, str]) -> None:
        self.stack = stack
        self._config = stack.config
        self._secrets = secrets
        layout = stack.config.layout
        self._shop = {
            **self._only("SHOP_DATABASE_URL"),
            "SHOP_SECRET_KEY": secrets["shop_secret_key"],
            "SHOP_PAYMENT_WEBHOOK_SECRET": secrets["payment_webhook_secret"],
            "SHOP_MEDIA_ROOT": str(layout.var / "media"),
            "SHOP_STATIC_ROOT": str(layout.var / "static"),
            "SHOP_EMAIL_DIR": str(layout.var / "mail"),
            "SHOP_DEMO_PASSWORD": secrets["demo_password"],
            # the work factor guards stolen hashes; these are of invented shoppers, and two cores serve all
            "SHOP_PASSWORD_ITERATIONS": "1000",
            # all virtual shoppers come from one address
            **{f"SHOP_THROTTLE_{what}": "100000/min" for what in ("LOGIN", "REGISTER", "REVIEW", "CHECKOUT")},
            "STRANGLER_SEAM": "1",
        }

    def monolith(self) -> Program:
        return self._uvicorn(
            "monolith", "monolith.config.asgi:application", self._config.ports.monolith, self._shop
        )

    def catalogue(self) -> Program:
        env = self._only("CATALOG_DATABASE_URL")
        catalogue = self._uvicorn(
            "catalogue", "extracted.catalog.app:create_app", self._config.ports.catalog, env, factory=True
        )
        return replace(catalogue, essential=False)

    def manage(self, name: str, *arguments: str) -> Program:
        return self._program(
            name, [sys.executable, "-m", "monolith.manage", *arguments], self._shop, deadline=180
        )

    def catalogue_migrate(self) -> Program:
        command = [sys.executable, "-m", "extracted.catalog", "migrate"]
        return self._program("catalogue-migrate", command, self._only("CATALOG_DATABASE_URL"))

    def proxy(self) -> Program:
        ports = self._config.ports
        return self._strangler(
            "proxy",
            ["proxy", "--routes", str(self.stack.routes), "--port", str(ports.proxy),
             "--admin-port", str(ports.admin), "--workers", str(self._config.proxy_workers),
             "--engine", self._config.engine],
            {
                "STRANGLER_COOKIE_SECRET": self._secrets["cookie_secret"],
                **self._only("STRANGLER_ADMIN_TOKEN"),
            },
            http_ready(ports.admin),
        )  # fmt: skip

    def change_stream(self) -> Program:
        stream = self._strangler(
            "change-stream",
            ["cdc", "run", str(self._config.plan), *self._settings()],
            self.stack.environment,
            has_spoken(self._config.layout.log("change-stream")),
        )
        return replace(stream, essential=False)

    def controller(self) -> Program:
        controller = self._strangler(
            "controller",
            ["controller", str(self._config.plan), *self._settings()],
            self.stack.environment,
            _controls(self.stack.environment["STRANGLER_LEDGER_DSN"]),
        )
        return replace(controller, essential=False)

    def _settings(self) -> list[str]:
        settings = (*self._config.plan_settings, f"stream.source={self._config.cdc}")
        return [text for setting in settings for text in ("--set", setting)]

    def _strangler(
        self, name: str, arguments: Sequence[str], env: Mapping[str, str], probe: Probe
    ) -> Program:
        return self._program(name, strangler_command(arguments), env, probe=probe)

    def _uvicorn(
        self, name: str, app: str, port: int, env: Mapping[str, str], *, factory: bool = False
    ) -> Program:
        command = [
            sys.executable, "-m", "uvicorn", *(["--factory"] if factory else []), app, "--host", "127.0.0.1",
            "--port", str(port), "--loop", "uvloop", "--http", "httptools", "--no-access-log",
            "--timeout-graceful-shutdown", "5",
        ]  # fmt: skip
        return self._program(name, command, env, probe=http_ready(port))

    def _program(
        self,
        name: str,
        command: Sequence[str],
        env: Mapping[str, str],
        *,
        probe: Probe | None = None,
        deadline: float = 45,
    ) -> Program:
        ours = {"SHOP_SECRET_KEY", "STRANGLER_COOKIE_SECRET", *self.stack.environment}
        inherited = {key: value for key, value in os.environ.items() if key not in ours}
        return Program(
            name=name,
            command=command,
            log=self._config.layout.log(name),
            probe=probe or _always,
            env={**inherited, **env, "PYTHONUNBUFFERED": "1"},
            deadline=deadline,
        )

    def _only(self, *names: str) -> dict[str, str]:
        return {name: self.stack.environment[name] for name in names}


async def _always() -> str | None:
    return None


def _controls(ledger_dsn: str) -> Probe:
    """Ready when some session holds the lock of a migration's controller in the ledger."""

    def ask() -> str | None:
        with psycopg.connect(ledger_dsn, connect_timeout=2) as connection:
            held = connection.execute(
                "SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database "
                "WHERE locktype = 'advisory' AND granted AND datname = current_database()"
            ).fetchone()
        return None if held is not None else "it does not hold the controller's lock in the ledger yet"

    async def probe() -> str | None:
        try:
            return await asyncio.to_thread(ask)
        except psycopg.OperationalError as error:
            return f"the ledger does not answer: {str(error).strip()}"

    return probe


def strangler_command(arguments: Sequence[str]) -> list[str]:
    """The command line of `strangler` with `arguments`, from the environment this process runs in."""
    script = Path(sys.executable).with_name("strangler")
    if not script.exists():
        raise StackError(f"the command {script} is missing", remedy="run `make setup` again")
    return [str(script), *arguments]


def _environment(
    config: StackConfig, secrets: Mapping[str, str], *, routes: Path, host: str, port: int
) -> dict[str, str]:
    def url(role: str, database: str) -> str:
        return databases.url(role=role, password=secrets[role], database=database, host=host, port=port)

    return {
        "SHOP_DATABASE_URL": url("shop", "shop"),
        "CATALOG_DATABASE_URL": url("catalog", "catalog"),
        "STRANGLER_LEDGER_DSN": url("strangler", "strangler"),
        "SHOP_CDC_DSN": url("cdc", "shop"),
        "CATALOG_CDC_DSN": url("cdc", "catalog"),
        "STRANGLER_ROUTES": str(routes),
        "STRANGLER_PROXY_ADMIN": f"http://127.0.0.1:{config.ports.admin}",
        "STRANGLER_ADMIN_TOKEN": secrets["admin_token"],
    }


def _write_environment(path: Path, environment: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in environment.items()]
    path.write_text("".join(lines), encoding="utf-8")
