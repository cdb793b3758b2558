"""One database and one least-privileged role for each owner, on a server that may already hold other things.

`OWNERS` and `GUESTS` are the matrix of docs/reference/contracts.md; everything else here makes a server look
like it. All of it is safe to repeat; `python -m workshop.databases`
does it with passwords from the environment. What the workshop makes it marks with a comment, and it refuses to touch
a database or role of the same name that lacks the mark: that one belongs to somebody else.
"""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import LiteralString
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.rows import scalar_row

from workshop.supervisor import StackError

MARK = "made by the workshop of strangler-toolkit"

# database: the role that owns it
OWNERS: Mapping[str, str] = {"shop": "shop", "catalog": "catalog", "strangler": "strangler"}
# role: databases of others that it may connect to
GUESTS: Mapping[str, tuple[str, ...]] = {"cdc": ("shop", "catalog")}
# roles that may start replication
REPLICATION = frozenset({"cdc"})
# guests that need temporary tables there (the change stream stages its batches)
TEMPORARY: Mapping[str, tuple[str, ...]] = {"cdc": ("catalog",)}
# schemas that a guest owns in somebody else's database
GUEST_SCHEMAS: Mapping[str, tuple[tuple[str, str], ...]] = {"catalog": (("strangler_cdc", "cdc"),)}

ROLES: Sequence[str] = (*dict.fromkeys(OWNERS.values()), *GUESTS)

_OLDEST_VERSION = 160000


class UnfitServerError(StackError):
    """The server is there but cannot or must not be used; nothing was changed on it."""


class ServerUnreachableError(StackError):
    """Nobody answers at the DSN, or not to us."""


@dataclass(frozen=True, slots=True)
class Server:
    """Facts about a PostgreSQL server, as its administrator connection sees them."""

    version: int
    wal_level: str
    superuser: bool
    may_create: bool
    may_replicate: bool
    free_slots: int  # not counting those of an earlier run of the workshop
    free_senders: int
    user: str


def inspect(admin: psycopg.Connection) -> Server:
    """The facts `faults_of` judges."""
    row = admin.execute(
        """
        SELECT current_setting('server_version_num')::int, current_setting('wal_level'),
               r.rolsuper, r.rolsuper OR (r.rolcreaterole AND r.rolcreatedb), r.rolsuper OR r.rolreplication,
               current_setting('max_replication_slots')::int
                   - (SELECT count(*) FROM pg_replication_slots WHERE database <> ALL (%(ours)s))::int,
               current_setting('max_wal_senders')::int
                   - (SELECT count(*) FROM pg_stat_replication WHERE usename <> ALL (%(roles)s))::int,
               current_user::text
          FROM pg_roles r WHERE r.rolname = current_user
        """,
        {"ours": list(OWNERS), "roles": list(ROLES)},
    ).fetchone()
    assert row is not None
    return Server(*row)


def faults_of(server: Server) -> list[str]:
    """Why `server` cannot carry the workshop, each with what to do about it. Empty: it can."""
    found: list[str] = []
    if server.version < _OLDEST_VERSION:
        found.append(
            f"PostgreSQL {server.version // 10000} is too old, 16 or newer is needed: use a newer server, "
            f"or none at all (the embedded one is used then)"
        )
    if server.wal_level != "logical":
        found.append(
            f"wal_level is {server.wal_level!r}, the change stream needs 'logical': run "
            f"`ALTER SYSTEM SET wal_level = 'logical'` and restart the server (a reload is not enough)"
        )
    if not server.may_create:
        found.append(
            f"role {server.user!r} may not create databases and roles: connect as a superuser, or "
            f"run `ALTER ROLE {server.user} CREATEDB CREATEROLE REPLICATION` as one"
        )
    elif not server.may_replicate:
        found.append(
            f"role {server.user!r} may not give the right to replicate: "
            f"run `ALTER ROLE {server.user} REPLICATION` as a superuser"
        )
    # one slot for the stream and one for a verification beside it
    if server.free_slots < 2:
        found.append(
            f"{max(server.free_slots, 0)} replication slots are free, 2 are needed: raise "
            f"max_replication_slots and restart the server, or drop slots nobody uses (pg_replication_slots)"
        )
    if server.free_senders < 2:
        found.append(
            f"{max(server.free_senders, 0)} WAL senders are free, 2 are needed: raise max_wal_senders and "
            f"restart the server"
        )
    return found


def url(*, role: str, password: str, database: str, host: str, port: int) -> str:
    """Connection URL of `role` in `database`."""
    shown = f"[{host}]" if ":" in host else host
    return f"postgresql://{quote(role, safe='')}:{quote(password, safe='')}@{shown}:{port}/{database}"


def in_database(dsn: str, database: str) -> str:
    """`dsn` with another database."""
    return psycopg.conninfo.make_conninfo(dsn, dbname=database)


def ensure(admin_dsn: str, passwords: Mapping[str, str]) -> None:
    """Make databases, roles and grants as the matrix wants them. Safe to repeat.

    `admin_dsn` names an existing database of the server; `passwords` has one for each of ROLES. Raises
    UnfitServerError when the server cannot carry the workshop or a name there belongs to somebody else,
    ServerUnreachableError.
    """
    try:
        admin = psycopg.connect(admin_dsn, autocommit=True, connect_timeout=5)
    except psycopg.OperationalError as error:
        raise ServerUnreachableError(
            f"PostgreSQL cannot be reached: {_without_password(str(error).strip())}",
            remedy="check --dsn or STRANGLER_POSTGRES_DSN; without either an embedded server is used",
        ) from error
    with admin:
        server = inspect(admin)
        if faults := faults_of(server):
            raise UnfitServerError(
                "this PostgreSQL server cannot carry the workshop; nothing was changed:\n"
                + "\n".join(f"  - {fault}" for fault in faults)
            )
        _refuse_strangers(admin)
        for role in ROLES:
            _ensure_role(admin, role, passwords[role], server=server)
        for database, owner in OWNERS.items():
            _ensure_database(admin, database, owner)
    for database in OWNERS:
        with psycopg.connect(admin_dsn, dbname=database, autocommit=True, connect_timeout=5) as inside:
            _ensure_schemas(inside, database)


def drop(admin_dsn: str) -> None:
    """Drop the workshop's databases (with their replication slots) and roles, where they bear its mark."""
    with psycopg.connect(admin_dsn, autocommit=True, connect_timeout=5) as admin:
        _refuse_strangers(admin)
        for database in OWNERS:
            slots = admin.execute(
                "SELECT slot_name, active_pid FROM pg_replication_slots WHERE database = %s", [database]
            ).fetchall()
            for slot, pid in slots:
                if pid is not None:
                    admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
                admin.execute("SELECT pg_drop_replication_slot(%s)", [slot])
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))
        for role in ROLES:
            if _role_mark(admin, role) is not None:
                for setting in _parameter_grants(admin, role):
                    admin.execute(
                        sql.SQL("REVOKE SET ON PARAMETER {} FROM {}").format(
                            sql.Identifier(setting), sql.Identifier(role)
                        )
                    )
                admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def _refuse_strangers(admin: psycopg.Connection) -> None:
    databases = admin.execute(
        "SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = ANY(%s)",
        [list(OWNERS)],
    ).fetchall()
    foreign = [f"database {name!r}" for name, mark in databases if mark != MARK]
    foreign += [f"role {role!r}" for role in ROLES if _role_mark(admin, role) not in {None, MARK}]
    if foreign:
        raise UnfitServerError(
            f"the server already has {', '.join(foreign)}, not made by the workshop; nothing was changed",
            remedy="use another server, or none (the embedded one is used then)",
        )


def _role_mark(admin: psycopg.Connection, role: str) -> str | None:
    """The role's comment, "" when it has none, None when there is no such role."""
    with admin.cursor(row_factory=scalar_row) as cursor:
        mark = cursor.execute(
            "SELECT coalesce(shobj_description(oid, 'pg_authid'), '') FROM pg_roles WHERE rolname = %s",
            [role],
        ).fetchone()
    return None if mark is None else str(mark)


def _parameter_grants(admin: psycopg.Connection, role: str) -> list[str]:
    with admin.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(
            """
            SELECT p.parname FROM pg_parameter_acl p, aclexplode(p.paracl) a
             WHERE a.grantee = %s::text::regrole
            """,
            [role],
        ).fetchall()


def _ensure_role(admin: psycopg.Connection, role: str, password: str, *, server: Server) -> None:
    name = sql.Identifier(role)
    if _role_mark(admin, role) is None:
        admin.execute(sql.SQL("CREATE ROLE {}").format(name))
        if not server.superuser:  # else we could not give it a database, nor act on its objects
            admin.execute(sql.SQL("GRANT {} TO CURRENT_USER WITH SET TRUE, INHERIT TRUE").format(name))
        admin.execute(sql.SQL("COMMENT ON ROLE {} IS {}").format(name, sql.Literal(MARK)))
    replication = sql.SQL("REPLICATION" if role in REPLICATION else "NOREPLICATION")
    if role not in REPLICATION and not server.superuser:
        replication = sql.SQL("")  # the default, and only a superuser may say so aloud
    admin.execute(
        sql.SQL("ALTER ROLE {} LOGIN NOCREATEDB NOCREATEROLE {} PASSWORD {}").format(
            name, replication, sql.Literal(password)
        )
    )
    if server.superuser and role in REPLICATION:
        admin.execute(sql.SQL("GRANT SET ON PARAMETER session_replication_role TO {}").format(name))


def _ensure_database(admin: psycopg.Connection, database: str, owner: str) -> None:
    name = sql.Identifier(database)
    if admin.execute("SELECT FROM pg_database WHERE datname = %s", [database]).fetchone() is None:
        admin.execute(
            sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8'").format(
                name, sql.Identifier(owner)
            )
        )
        admin.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(name, sql.Literal(MARK)))
    admin.execute(sql.SQL("REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC").format(name))
    for guest, hosts in GUESTS.items():
        if database in hosts:
            _grant(admin, "GRANT CONNECT ON DATABASE {} TO {}", database, guest)
        if database in TEMPORARY.get(guest, ()):
            _grant(admin, "GRANT TEMPORARY ON DATABASE {} TO {}", database, guest)


def _grant(admin: psycopg.Connection, statement: LiteralString, database: str, role: str) -> None:
    admin.execute(sql.SQL(statement).format(sql.Identifier(database), sql.Identifier(role)))


def _ensure_schemas(inside: psycopg.Connection, database: str) -> None:
    for schema, role in GUEST_SCHEMAS.get(database, ()):
        inside.execute(
            sql.SQL("CREATE SCHEMA IF NOT EXISTS {} AUTHORIZATION {}").format(
                sql.Identifier(schema), sql.Identifier(role)
            )
        )


def _without_password(text: str) -> str:
    return re.sub(r"(://[^:/@\s]*):[^@\s]*@", r"\1:***@", text)


def main() -> int:
    """Make databases and roles on the server that STRANGLER_POSTGRES_DSN names; the passwords are in SHOP_PASSWORD,
    CATALOG_PASSWORD, STRANGLER_PASSWORD and CDC_PASSWORD. The exit code: 0 done, 1 refused, 2 a variable is missing.
    """
    names = {role: f"{role.upper()}_PASSWORD" for role in ROLES}
    missing = [name for name in ("STRANGLER_POSTGRES_DSN", *names.values()) if not os.environ.get(name)]
    if missing:
        print(f"set {', '.join(missing)}", file=sys.stderr)
        return 2
    try:
        passwords = {role: os.environ[name] for role, name in names.items()}
        ensure(os.environ["STRANGLER_POSTGRES_DSN"], passwords)
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
