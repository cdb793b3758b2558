"""All SQL of the catalogue. Reads only: the change stream writes.

A product list is found in two steps inside one statement: the page of products that match, in order, and
only then what is shown beside them (category, rating, first picture), so that nothing is computed for rows
that are not on the page.
"""

from collections.abc import Sequence
from typing import Any, LiteralString, TypeVar

from psycopg import sql
from psycopg.rows import class_row

from chassis.drf.pagination import Page
from chassis.postgres import Connection, read
from chassis.shadow import Pools
from extracted.catalog.rules import (
    CategoryRow,
    Picture,
    Product,
    ProductDetail,
    Review,
    Selection,
    SortField,
    SortTerm,
)

_ORDER: dict[SortField, LiteralString] = {
    SortField.PRICE: "price_cents",
    SortField.NAME: "title",
    SortField.CREATED_AT: "created_at",
    SortField.RATING: "mean_rating",
}

# the order of the page, inside (to cut it) and outside (to keep it after the joins); both see these names
_PAGE = """
SELECT p.product_id, p.title, p.price_cents, p.created_at, {rank} AS rank, {mean_rating} AS mean_rating
FROM product p {ratings}
WHERE {where}
ORDER BY {order}
LIMIT %(limit)s OFFSET %(offset)s
"""

_CARD = """
SELECT p.product_id AS id, p.sku, p.slug, p.title, p.brand, p.price_cents, p.currency,
       p.category_id, c.slug AS category_slug, c.title AS category_title,
       first_picture.document->>'file' AS first_picture,
       reviews.rating, reviews.review_count,
       p.released_on, p.created_at, p.changed_at
FROM {products}
JOIN category c ON c.category_id = p.category_id
LEFT JOIN LATERAL (
    SELECT document FROM picture WHERE picture.product_id = p.product_id ORDER BY sort_key, picture_id LIMIT 1
) first_picture ON true
CROSS JOIN LATERAL (
    SELECT round(avg(counted_rating), 2) AS rating, count(counted_rating) AS review_count
    FROM review WHERE review.product_id = p.product_id
) reviews
"""

_RATINGS = """
LEFT JOIN (
    SELECT product_id, round(avg(counted_rating), 2) AS rating FROM review GROUP BY product_id
) r ON r.product_id = p.product_id
"""

_IN_CATEGORY = """
p.category_id IN (
    WITH RECURSIVE below AS (
        SELECT category_id FROM category WHERE slug = %(category)s
        UNION
        SELECT child.category_id FROM category child JOIN below ON child.parent_id = below.category_id
    )
    SELECT category_id FROM below
)
"""


_REST = """
SELECT description,
       CASE WHEN material IS NULL THEN specs ELSE specs || jsonb_object(ARRAY['material', material]) END,
       weight_grams
FROM product WHERE product_id = %(id)s
"""

_PICTURES = """
SELECT document->>'file' AS file, document->>'alt' AS alt, sort_key
FROM picture WHERE product_id = %(id)s ORDER BY sort_key, picture_id
"""

_CATEGORIES = """
SELECT category_id AS id, parent_id, slug, title, coalesce(listed.count, 0) AS listed_products
FROM category
LEFT JOIN (
    SELECT category_id, count(*) FROM product WHERE listed GROUP BY category_id
) listed USING (category_id)
ORDER BY sort_key, category_id
"""

_REVIEWS = """
SELECT review_id AS id, byline, rating, title, body, written_at
FROM review WHERE product_id = %(id)s AND status = 'approved'
ORDER BY written_at DESC, review_id DESC
LIMIT %(limit)s OFFSET %(offset)s
"""

_Row = TypeVar("_Row")
_Query = sql.SQL | sql.Composed


class CatalogStore:
    """Reads of the catalogue, each through the pool that is right for the request."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools

    async def category_exists(self, slug: str) -> bool:
        """Whether there is a category of that slug."""
        query = sql.SQL("SELECT 1 FROM category WHERE slug = %(slug)s")
        return await self._first(query, {"slug": slug}) is not None

    async def categories(self) -> Sequence[CategoryRow]:
        """All categories in the order siblings are shown, each with the number of its own listed products."""
        return await self._all(CategoryRow, sql.SQL(_CATEGORIES), {})

    async def count_products(self, selection: Selection) -> int:
        """How many listed products match."""
        query = sql.SQL("SELECT count(*) FROM product p WHERE {}").format(_where(selection))
        return await self._count(query, _parameters(selection))

    async def products(self, selection: Selection, page: Page) -> Sequence[Product]:
        """One page of the listed products that match, in the selection's order."""
        by_rating = any(term.field is SortField.RATING for term in selection.ordering)
        cut = sql.SQL(_PAGE).format(
            rank=_rank(selection),
            mean_rating=sql.SQL("r.rating" if by_rating else "NULL::numeric"),
            ratings=sql.SQL(_RATINGS if by_rating else ""),
            where=_where(selection),
            order=_order(selection, sql.SQL("")),
        )
        cards = sql.SQL(_CARD).format(
            products=sql.SQL("({}) page JOIN product p ON p.product_id = page.product_id").format(cut)
        )
        query = sql.SQL("{} ORDER BY {}").format(cards, _order(selection, sql.SQL("page.")))
        parameters = {**_parameters(selection), "limit": page.size, "offset": page.offset}
        return await self._all(Product, query, parameters)

    async def product(self, slug: str) -> ProductDetail | None:
        """The listed product of that slug."""
        cards = sql.SQL(_CARD).format(products=sql.SQL("product p"))
        query = sql.SQL("{} WHERE p.slug = %(slug)s AND p.listed").format(cards)
        for product in await self._all(Product, query, {"slug": slug}):
            rest = await self._first(sql.SQL(_REST), {"id": product.id})
            if rest is None:  # deleted since
                return None
            pictures = await self._all(Picture, sql.SQL(_PICTURES), {"id": product.id})
            description, attributes, weight_grams = rest
            return ProductDetail(product, description, attributes, weight_grams, tuple(pictures))
        return None

    async def find_listed(self, slug: str) -> int | None:
        """The id of the listed product of that slug."""
        query = sql.SQL("SELECT product_id FROM product WHERE slug = %(slug)s AND listed")
        row = await self._first(query, {"slug": slug})
        return None if row is None else int(row[0])

    async def count_reviews(self, product_id: int) -> int:
        """How many approved reviews the product has."""
        query = sql.SQL("SELECT count(*) FROM review WHERE product_id = %(id)s AND status = 'approved'")
        return await self._count(query, {"id": product_id})

    async def reviews(self, product_id: int, page: Page) -> Sequence[Review]:
        """One page of the approved reviews, newest first."""
        parameters = {"id": product_id, "limit": page.size, "offset": page.offset}
        return await self._all(Review, sql.SQL(_REVIEWS), parameters)

    async def _all(self, row: type[_Row], query: _Query, parameters: dict[str, Any]) -> Sequence[_Row]:
        async def work(connection: Connection) -> Sequence[_Row]:
            cursor = connection.cursor(row_factory=class_row(row))
            return await (await cursor.execute(query, parameters)).fetchall()

        return await read(self._pools.current(), work)

    async def _first(self, query: _Query, parameters: dict[str, Any]) -> tuple[Any, ...] | None:
        async def work(connection: Connection) -> tuple[Any, ...] | None:
            return await (await connection.execute(query, parameters)).fetchone()

        return await read(self._pools.current(), work)

    async def _count(self, query: _Query, parameters: dict[str, Any]) -> int:
        row = await self._first(query, parameters)
        assert row is not None, "count(*) always gives a row"
        return int(row[0])


def _where(selection: Selection) -> sql.Composable:
    conditions: list[LiteralString] = ["p.listed"]
    if selection.category is not None:
        conditions.append(_IN_CATEGORY)
    if selection.brand is not None:
        conditions.append("p.brand = %(brand)s")
    if selection.min_cents is not None:
        conditions.append("p.price_cents >= %(min_cents)s::bigint")
    if selection.max_cents is not None:
        conditions.append("p.price_cents <= %(max_cents)s::bigint")
    if selection.released_after is not None:
        conditions.append("p.released_on >= %(released_after)s")
    if selection.words is not None:
        conditions.append("p.search @@ websearch_to_tsquery('english', %(words)s)")
    return sql.SQL(" AND ").join(sql.SQL(condition) for condition in conditions)


def _parameters(selection: Selection) -> dict[str, Any]:
    return {
        "category": selection.category,
        "brand": selection.brand,
        "min_cents": selection.min_cents,
        "max_cents": selection.max_cents,
        "released_after": selection.released_after,
        "words": selection.words,
    }


def _rank(selection: Selection) -> sql.SQL:
    if selection.words is None:
        return sql.SQL("NULL::real")
    return sql.SQL("ts_rank(p.search, websearch_to_tsquery('english', %(words)s))")


def _order(selection: Selection, prefix: sql.SQL) -> sql.Composed:
    return sql.SQL(", ").join(prefix + sql.SQL(term) for term in _order_terms(selection))


def _order_terms(selection: Selection) -> list[LiteralString]:
    if selection.ordering:
        return [*map(_term, selection.ordering), "product_id"]
    if selection.words is not None:
        return ["rank DESC", "product_id"]
    return ["created_at DESC", "product_id"]


def _term(term: SortTerm) -> LiteralString:
    direction: LiteralString = " DESC NULLS LAST" if term.descending else " ASC NULLS LAST"
    return _ORDER[term.field] + direction
