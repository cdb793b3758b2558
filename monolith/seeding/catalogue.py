"""Rows of the catalogue from a random generator. Pure: no database, no clock."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

from django.utils.text import slugify

from monolith.seeding import words
from monolith.seeding.assortment import KINDS, Kind

ANCHOR = datetime(2025, 6, 1, tzinfo=UTC)
"""Everything seeded happened before this moment."""


@dataclass(frozen=True, slots=True)
class CategoryRow:
    """One row of catalog_category."""

    id: int
    parent_id: int | None
    slug: str
    name: str
    position: int


@dataclass(frozen=True, slots=True)
class ProductRow:
    """One row of catalog_product, and which drawing shows it."""

    id: int
    sku: str
    slug: str
    name: str
    brand: str
    description: str
    price: Decimal
    currency: str
    attributes: dict[str, Any]
    weight_kg: Decimal | None
    category_id: int
    is_active: bool
    released_on: date | None
    created_at: datetime
    updated_at: datetime
    motif: str


@dataclass(frozen=True, slots=True)
class ReviewRow:
    """One row of catalog_review."""

    id: int
    product_id: int
    author_id: int
    author_name: str
    rating: int
    title: str
    body: str
    is_approved: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One row of catalog_productimage."""

    id: int
    product_id: int
    image: str
    alt: str
    position: int


def categories() -> tuple[CategoryRow, ...]:
    """The three levels of the assortment, parents before children."""
    rows: dict[tuple[str, ...], CategoryRow] = {}
    for kind in KINDS:
        path: tuple[str, ...] = ()
        for name in (kind.root, kind.branch, kind.leaf):
            parent = rows.get(path)
            path = (*path, name)
            if path not in rows:
                siblings = sum(row.parent_id == (parent.id if parent else None) for row in rows.values())
                # names such as "Bags" occur below more than one branch
                taken = {row.slug for row in rows.values()}
                short, long = slugify(name), slugify(f"{path[-2] if len(path) > 1 else 'all'} {name}")
                rows[path] = CategoryRow(
                    id=len(rows) + 1,
                    parent_id=parent.id if parent else None,
                    slug=long if short in taken else short,
                    name=name,
                    position=siblings + 1,
                )
    return tuple(rows.values())


def products(rng: Random, count: int) -> Iterator[ProductRow]:
    """`count` products over all leaves, in the order of their ids."""
    tree = categories()
    names = {row.id: row for row in tree}
    leaves = {
        (names[branch.parent_id].name, branch.name, row.name): row.id
        for row in tree
        if row.parent_id and (branch := names[row.parent_id]).parent_id
    }
    weights = [rng.uniform(0.5, 2.0) for _ in KINDS]  # some departments are larger than others
    slugs: set[str] = set()
    for number in range(1, count + 1):
        kind = rng.choices(KINDS, weights)[0]
        yield _product(
            rng, number, kind=kind, category_id=leaves[kind.root, kind.branch, kind.leaf], slugs=slugs
        )


def _product(rng: Random, number: int, *, kind: Kind, category_id: int, slugs: set[str]) -> ProductRow:
    series, adjective, noun = rng.choice(words.SERIES), rng.choice(words.ADJECTIVES), rng.choice(kind.nouns)
    name = f"{series} {adjective} {noun}" if rng.random() < 0.6 else f"{series} {noun}"
    brand, material, colour = rng.choice(words.BRANDS), rng.choice(kind.materials), rng.choice(words.COLOURS)
    slug = slugify(name)
    if slug in slugs:
        slug = f"{slug}-{number}"
    slugs.add(slug)
    width, height = round(rng.uniform(5, 120), 1), round(rng.uniform(2, 90), 1)
    created = moment(rng, days=730)
    texts = {
        "adjective": adjective.lower(), "noun": noun.lower(), "material": material, "use": kind.use,
        "Material": material.capitalize(), "series": series, "colour": colour, "width": width,
        "height": height, "brand": brand,
    }  # fmt: skip
    description = " ".join(
        [
            rng.choice(words.OPENINGS).format(**texts),
            *(text.format(**texts) for text in rng.sample(words.MIDDLES, rng.randint(1, 3))),
            rng.choice(words.CLOSINGS).format(**texts),
        ]
    )
    attributes: dict[str, Any] = {"colour": colour, "material": material}
    if rng.random() < 0.8:
        attributes["dimensions_cm"] = {"width": width, "height": height}
    if features := rng.sample(words.FEATURES, rng.choice((0, 0, 1, 2, 3))):
        attributes["features"] = features
    if rng.random() < 0.2:
        attributes["guarantee_years"] = rng.choice((2, 3, 5, 10))
    if rng.random() < 0.05:
        attributes["discontinued_by_maker"] = rng.random() < 0.5
    return ProductRow(
        id=number,
        sku=f"{_letters(kind.leaf)}-{number:05d}",
        slug=slug,
        name=name,
        brand=brand,
        description=description,
        price=_price(rng, kind.price),
        currency="EUR",
        attributes=attributes,
        weight_kg=None if rng.random() < 0.1 else _between(rng, kind.weight),
        category_id=category_id,
        is_active=rng.random() >= 0.03,
        released_on=None if rng.random() < 0.15 else (created - timedelta(days=rng.randint(0, 900))).date(),
        created_at=created,
        updated_at=min(created + timedelta(seconds=rng.randint(0, 90 * 86400)), ANCHOR),
        motif=kind.motif,
    )


def images(rng: Random, products: Sequence[ProductRow], *, variants: int) -> Iterator[ImageRow]:
    """One to three pictures for nearly every product; `variants` drawings exist of each motif."""
    number = 0
    for product in products:
        if rng.random() < 0.03:
            continue
        first = rng.randrange(variants)
        for position in range(rng.choice((1, 1, 2, min(3, variants)))):
            number += 1
            yield ImageRow(
                id=number,
                product_id=product.id,
                image=f"products/{product.motif}-{(first + position) % variants + 1}.webp",
                alt=product.name if position == 0 else f"{product.name}, picture {position + 1}",
                position=position,
            )


def reviews(
    rng: Random, products: Sequence[ProductRow], authors: Sequence[tuple[int, str]]
) -> Iterator[ReviewRow]:
    """Few products with many reviews, many with few; `authors` are pairs of user id and public name."""
    number = 0
    for product in products:
        if not authors or rng.random() < 0.3:
            continue
        wanted = min(int(rng.paretovariate(1.1)), 60, len(authors))
        liked = rng.betavariate(5, 2)
        for author_id, author_name in rng.sample(authors, wanted):
            number += 1
            rating = min(5, max(1, round(1 + 4 * rng.betavariate(6 * liked + 0.5, 6 * (1 - liked) + 0.5))))
            titles, bodies = words.REVIEWS[rating]
            age = (ANCHOR - product.created_at) * rng.random()
            yield ReviewRow(
                id=number,
                product_id=product.id,
                author_id=author_id,
                author_name=author_name,
                rating=rating,
                title=rng.choice(titles),
                body=" ".join(rng.sample(bodies, rng.randint(0, 2))),
                is_approved=rng.random() >= 0.03,
                created_at=product.created_at + age,
            )


def moment(rng: Random, *, days: int) -> datetime:
    """A moment in the last `days` before ANCHOR; some have no fraction of a second, as imported rows do."""
    when = ANCHOR - timedelta(seconds=rng.uniform(0, days * 86400))
    return when.replace(microsecond=0) if rng.random() < 0.2 else when


def _price(rng: Random, limits: tuple[int, int]) -> Decimal:
    low, high = (math.log(limit) for limit in limits)
    euros = int(math.exp(rng.uniform(low, high)))
    return Decimal(euros) + Decimal(rng.choice(("0.00", "0.50", "0.90", "0.95", "0.99")))


def _between(rng: Random, limits: tuple[float, float]) -> Decimal:
    return max(Decimal(str(round(rng.uniform(*limits), 3))), Decimal("0.001"))


def _letters(leaf: str) -> str:
    return "".join(letter for letter in leaf.upper() if letter.isalpha())[:3]
