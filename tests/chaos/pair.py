"""A source and a target server of our own, a relay in front of each, and what can be done to them.

They live over many runs; each run makes its own databases and slot. A crash kills every process of a server with
SIGKILL, so what was only in shared memory is lost; the machine itself does not crash, so fsync is off.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql

from tests.cdc_shop import admin, until
from tests.chaos.cut import Cut
from tests.chaos.nursery import Nursery
from workshop.postgres import EmbeddedPostgres

_SMALL_DISK_MB = 48
_NOBODY = 65534


def can_mount(directory: Path) -> bool:
    """Whether we may mount a small disk, which a full disk needs."""
    probe = directory / "probe"
    probe.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "chaos", probe], check=False, capture_output=True
    )
    if mounted.returncode:
        return False
    subprocess.run(["umount", probe], check=True, capture_output=True)
    return True


def make_server(directory: Path) -> EmbeddedPostgres:
    """A server whose slots may keep any amount of log until a fault says otherwise."""
    server = EmbeddedPostgres(directory, durable=False)
    # given on the command line it could not be changed while the server runs
    del server.settings["max_slot_wal_keep_size"]
    return server


def socket_of(server: EmbeddedPostgres) -> Path:
    """The Unix socket that the server listens on."""
    return server.socket_dir / f".s.PGSQL.{server.port}"


def crash(server: EmbeddedPostgres) -> None:
    """SIGKILL to every process of the server."""
    postmaster = server.pid
    assert postmaster is not None
    os.kill(postmaster, signal.SIGSTOP)  # it must not start others meanwhile
    children = [
        int(each) for each in Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    ]
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    server.stop(how=signal.SIGKILL)
    until(lambda: not any(_lives(child) for child in children))


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


def _hand_over(data: Path) -> None:
    """To the user that the server runs as."""
    if os.geteuid() == 0:
        for path in [data, *data.rglob("*")]:
            os.lchown(path, _NOBODY, _NOBODY)


class Pair:
    """Both servers and their relays while the `with` block runs. Enter it in the main thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.source = self._first_source = make_server(directory / "source")
        self.target = make_server(directory / "target")
        self.source_cut = Cut(socket_of(self.source))
        self.target_cut = Cut(socket_of(self.target))
        self.nursery = Nursery()
        self._exits = ExitStack()
        self._disk: Path | None = None
        self._standby: EmbeddedPostgres | None = None

    def __enter__(self) -> Self:
        with ExitStack() as exits:
            for server in (self._first_source, self.target):
                exits.callback(server.destroy)
                server.start()
            for cut in (self.source_cut, self.target_cut):
                exits.enter_context(cut)
            exits.enter_context(self.nursery)
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.forget_standby()
        self._exits.close()
        if self._disk is not None:
            subprocess.run(["umount", self._disk], check=True)

    def source_dsn(self, name: str) -> str:
        """Straight to whoever is the source now, for writers and onlookers."""
        return self.source.dsn(dbname=name)

    def target_dsn(self, name: str) -> str:
        """Straight to the target."""
        return self.target.dsn(dbname=name)

    # faults that need the servers

    def add_standby(self, *, with_slot: tuple[str, str] | None = None) -> None:
        """A hot standby of the source that follows it by streaming, without any slot on the source. `with_slot`:
        database and name of a logical slot that somebody makes on the standby by hand.
        """
        self._standby = self._copy("standby", "-R").start()
        if with_slot is not None:
            self._make_slot_on_standby(*with_slot)

    def _copy(self, name: str, *more: str) -> EmbeddedPostgres:
        """A base backup of the source in a directory of its own, as a server that does not run yet."""
        server = make_server(self._directory / f"{name}-{time.monotonic_ns()}")
        server.settings["hot_standby_feedback"] = "on"  # or a vacuum would invalidate the standby's slot
        server.directory.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [server._bin / "pg_basebackup", "-h", self.source.socket_dir, "-p", str(self.source.port),
             "-U", "postgres", "-D", server.data, *more, "-X", "stream", "-c", "fast", "--no-sync"],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        _hand_over(server.data)
        return server

    def _make_slot_on_standby(self, database: str, slot: str) -> None:
        assert self._standby is not None
        with (
            admin(self._standby.dsn(dbname=database)) as standby,
            admin(self.source.dsn()) as source,
            ThreadPoolExecutor(1) as beside,
        ):
            made = beside.submit(
                standby.execute, "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot]
            )
            while not made.done():
                # the standby waits for a record that tells of the running transactions
                source.execute("SELECT pg_log_standby_snapshot()")
                wait([made], timeout=0.05)
            made.result()

    def cut_standby_off(self) -> None:
        """Nothing of the source's log reaches the standby any more."""
        assert self._standby is not None
        with admin(self._standby.dsn()) as standby:
            standby.execute("ALTER SYSTEM SET primary_conninfo = ''")
            standby.execute("SELECT pg_reload_conf()")
            until(lambda: not one(standby, "SELECT count(*) FROM pg_stat_wal_receiver"))

    def switch_over(self) -> None:
        """As `fail_over`, and the standby has everything that the stream can have."""
        self.source_cut.silence()
        self.fail_over(caught_up=True)
        self.source_cut.heal()

    def take_backup(self) -> None:
        """Of the source as it is now."""
        self._standby = self._copy("backup")

    def restore(self, *, recover: bool, database: str, slot: str) -> None:
        """The source dies, its backup takes its place, and somebody makes the slot there by hand. `recover`: by archive
        recovery, which begins a new timeline; else the copy is just started.
        """
        assert self._standby is not None
        if recover:
            (self._standby.data / "recovery.signal").touch()
            self._standby.settings["restore_command"] = "false"
            _hand_over(self._standby.data)
        crash(self.source)
        self.source_cut.silence()
        self.source_cut.close()
        self.source = self._standby.start()
        with admin(self.source.dsn(dbname=database)) as source:
            until(lambda: not one(source, "SELECT pg_is_in_recovery()"))
            source.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
        self.source_cut.lead_to(socket_of(self.source))
        self.source_cut.heal()

    def fail_over(self, *, caught_up: bool) -> None:
        """The source dies, its standby takes its place and its address."""
        assert self._standby is not None
        if caught_up:
            with admin(self.source.dsn()) as source, admin(self._standby.dsn()) as standby:
                end = one(source, "SELECT pg_current_wal_flush_lsn()::text")
                until(lambda: bool(one(standby, "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", end)))
        crash(self.source)
        self.source_cut.close()
        with admin(self._standby.dsn()) as standby:
            assert one(standby, "SELECT pg_promote(true, 30)")
        self.source = self._standby
        self.source_cut.lead_to(socket_of(self.source))

    def forget_standby(self) -> None:
        """The first source is the source again."""
        standby, self._standby = self._standby, None
        if standby is None:
            return
        standby.destroy()
        self.source = self._first_source
        if self.source.pid is None:
            self.source.start()
        self.source_cut.lead_to(socket_of(self.source))

    def small_disk(self) -> str:
        """A tablespace of the target on a disk of its own, made at the first call; its name."""
        if self._disk is None:
            disk = self.target.directory / "small-disk"
            disk.mkdir()
            options = f"size={_SMALL_DISK_MB}m,uid={_NOBODY},gid={_NOBODY},mode=700"
            if os.geteuid() != 0:
                options = f"size={_SMALL_DISK_MB}m,mode=700"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "chaos", disk], check=True)
            self._disk = disk
            place = disk / "space"
            place.mkdir(mode=0o700)
            if os.geteuid() == 0:
                os.chown(place, _NOBODY, _NOBODY)
            with admin(self.target.dsn()) as target:
                target.execute(
                    sql.SQL("CREATE TABLESPACE small_disk LOCATION {}").format(sql.Literal(str(place)))
                )
        return "small_disk"

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[None]:
        """Nothing is left on the small disk while the `with` block runs."""
        assert self._disk is not None
        ballast = self._disk / "ballast"
        try:
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while file.write(b"\0" * 4096):
                    pass
            yield
        finally:
            ballast.unlink(missing_ok=True)

    # databases of one run

    def make_databases(self, name: str, *, on_small_disk: bool) -> None:
        """One of this name on each side."""
        place = sql.SQL("")
        if on_small_disk:
            place = sql.SQL(" TABLESPACE {}").format(sql.Identifier(self.small_disk()))
        for server, where in ((self.source, sql.SQL("")), (self.target, place)):
            with admin(server.dsn()) as connection:
                connection.execute(sql.SQL("CREATE DATABASE {}{}").format(sql.Identifier(name), where))

    def drop_databases(self, name: str) -> None:
        """What a run has made, slots included; servers that are down are started first."""
        self.forget_standby()
        for server in (self.source, self.target):
            if server.pid is None:
                server.start()
            with admin(server.dsn()) as connection:
                connection.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
                connection.execute("SELECT pg_reload_conf()")
                drop_slots(connection, name)
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def drop_slots(connection: psycopg.Connection[Any], database: str) -> None:
    """Every slot of `database`, whoever reads from it."""
    while slots := connection.execute(
        "SELECT slot_name, active_pid FROM pg_replication_slots WHERE database = %s AND NOT temporary",
        [database],
    ).fetchall():
        for slot, pid in slots:
            if pid is not None:
                connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
            # its reader may have come back, or somebody may have dropped it: look again
            with contextlib.suppress(psycopg.errors.ObjectInUse, psycopg.errors.UndefinedObject):
                connection.execute("SELECT pg_drop_replication_slot(%s)", [slot])


def one(connection: psycopg.Connection[Any], query: str, *values: object) -> Any:
    """The only value of a query's first row, None when there is no row."""
    row = connection.execute(query.encode(), values).fetchone()
    return None if row is None else row[0]
