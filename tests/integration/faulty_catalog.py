"""The catalogue service with one fault, named by `CATALOG_FAULT`; run by uvicorn in tests.

* `price`: prices lose their cents for some products, as a column of the wrong type would do;
* `writes`: a GET of a product writes to the table `visit`, and swallows the error when it may not.
"""

import contextlib
import os
from typing import Any

import psycopg
from fastapi import FastAPI

from extracted.catalog import app, representation
from extracted.catalog.rules import ProductDetail
from extracted.catalog.store import CatalogStore


def create_app() -> FastAPI:
    """The faulty service."""
    match os.environ["CATALOG_FAULT"]:
        case "price":
            _round_prices()
        case "writes":
            _count_visits()
    return app.create_app()


def _round_prices() -> None:
    right = representation.product

    def wrong(item: Any, links: Any) -> dict[str, Any]:
        shown = right(item, links)
        if item.price_cents % 100:
            shown["price"] = f"{item.price_cents // 100}.00"
        return shown

    representation.product = wrong


def _count_visits() -> None:
    right = CatalogStore.product

    async def visited(self: CatalogStore, slug: str) -> ProductDetail | None:
        async with self._pools.current().connection() as connection:
            with contextlib.suppress(psycopg.Error):  # "it is only statistics"
                await connection.execute("INSERT INTO visit (slug) VALUES (%s)", [slug])
        return await right(self, slug)

    CatalogStore.product = visited  # type: ignore[method-assign]  # a fault is put in
