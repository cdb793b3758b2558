"""Entry of the catalogue service: `uvicorn --factory extracted.catalog.app:create_app`."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from chassis import logs, postgres
from chassis.applied import AppliedPosition, tell_applied
from chassis.migrations import check_applied, read_migrations
from chassis.service import create_service
from chassis.settings import EnvironmentSettings, read, variable
from chassis.shadow import Pools, keep_still, make_shadow_pool
from extracted.catalog.api import CatalogApi, make_site, mount
from extracted.catalog.store import CatalogStore

MIGRATIONS = Path(__file__).parent / "migrations"


class Settings(EnvironmentSettings):
    """What the catalogue is told by its environment."""

    database_url: str = variable(
        "CATALOG_DATABASE_URL",
        "the catalogue's own database, like postgresql://catalog:PASSWORD@127.0.0.1:5432/catalog",
        secret=True,
    )
    shadow_database_url: str = variable(
        "CATALOG_SHADOW_DATABASE_URL",
        "the same database with a role that was granted SELECT alone, for requests in shadow; "
        "default: CATALOG_DATABASE_URL, in read-only transactions",
        default="",
        secret=True,
    )
    public_media_url: str = variable(
        "CATALOG_PUBLIC_MEDIA_URL",
        "where the shop serves product pictures: a path on the public host (/media/) or a URL; ends with /",
        default="/media/",
        pattern="/$",
    )
    allowed_hosts: str = variable(
        "CATALOG_ALLOWED_HOSTS",
        "the public host names, comma-separated, as in SHOP_ALLOWED_HOSTS; .example.com for all below it",
        default="localhost,127.0.0.1,[::1]",
    )
    pool_size: int = variable(
        "CATALOG_POOL_SIZE", "most connections to the database, at least 2", default=10, ge=2
    )
    statement_timeout: float = variable(
        "CATALOG_STATEMENT_TIMEOUT", "seconds one query may take, more than 0", default=5.0, gt=0
    )

    @property
    def hosts(self) -> tuple[str, ...]:
        """`allowed_hosts`, taken apart."""
        return tuple(host.strip() for host in self.allowed_hosts.split(",") if host.strip())


def create_app(environ: Mapping[str, str] | None = None) -> FastAPI:
    """The application, configured by `environ` (os.environ when None).

    Raises chassis.settings.SettingsError that names each missing or wrong variable.
    """
    logs.configure("catalog")
    settings = read(Settings, os.environ if environ is None else environ)
    pool = postgres.make_pool(
        settings.database_url,
        name="catalog",
        max_size=settings.pool_size,
        statement_timeout=settings.statement_timeout,
    )
    pools = Pools(
        ordinary=pool,
        shadow=make_shadow_pool(
            settings.shadow_database_url or settings.database_url,
            name="catalog in shadow",
            statement_timeout=settings.statement_timeout,
        ),
    )
    migrations = read_migrations(MIGRATIONS)
    applied = AppliedPosition(pool)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with postgres.opened(pool), postgres.opened(pools.shadow), applied.followed():
            yield

    async def database() -> None:
        await postgres.check_database(pool)

    async def schema() -> None:
        await postgres.read(pool, lambda connection: check_applied(connection, migrations))

    app = create_service(
        "catalog",
        title="Catalogue",
        description="Products, categories, search and reviews of the shop.",
        lifespan=lifespan,
        checks={"database": database, "schema": schema},
    )
    tell_applied(app, applied)
    keep_still(app)
    api = CatalogApi(CatalogStore(pools), settings.public_media_url)
    mount(app, make_site(api, allowed_hosts=settings.hosts, owner="the shop"))
    return app
