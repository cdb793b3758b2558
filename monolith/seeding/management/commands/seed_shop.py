"""`seed_shop`: fill an empty shop with demo data."""

import os
import string
import time
from argparse import ArgumentParser
from pathlib import Path
from random import Random
from typing import Any

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.contrib.sessions.models import Session
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from monolith.accounts.models import Address, User
from monolith.catalog.models import Category, Product, ProductImage, Review
from monolith.inventory.models import StockItem, StockMovement
from monolith.orders.models import Order, OrderEvent, OrderLine
from monolith.payments.models import Payment, PaymentEvent
from monolith.seeding import catalogue, load, people, pictures, trade


class Command(BaseCommand):
    """Deterministic: the same numbers and the same seed give the same rows, ids and times included.

    All users have one password and share one hash of it, salt included: hashing takes a third of a second on
    purpose, which 2,000 users would feel. Only demo data may be made like that.
    """

    help = (
        "Fill an empty shop with demo data. Users are staff@shop.test and shopper0001@shop.test, …; their "
        "password is --password or SHOP_DEMO_PASSWORD."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Numbers, seed, password."""
        parser.add_argument("--products", type=int, default=2000)
        parser.add_argument("--users", type=int, default=200)
        parser.add_argument("--orders", type=int, default=1000)
        parser.add_argument("--seed", type=int, default=1)
        parser.add_argument("--password", default=os.environ.get("SHOP_DEMO_PASSWORD"))
        parser.add_argument("--if-empty", action="store_true", help="leave a shop that has products as it is")
        parser.add_argument("--replace", action="store_true", help="delete everything in the shop first")

    def handle(self, **options: Any) -> None:
        """Seed. Raises CommandError for a shop that is not empty, a negative number or a missing password."""
        for name in ("products", "users", "orders"):
            if options[name] < 0:
                raise CommandError(f"--{name} {options[name]}: a number below zero makes no shop")
        if not options["password"]:
            raise CommandError("give the demo users a password: --password or SHOP_DEMO_PASSWORD")
        if options["if_empty"] and Category.objects.exists():
            self.stdout.write("the shop has products; left as it is")
            return
        started = time.perf_counter()
        drawn = pictures.draw_all(Path(settings.MEDIA_ROOT) / "products")
        with transaction.atomic():
            if options["replace"]:
                load.truncate([Session, User, Category])
            elif Category.objects.exists() or User.objects.exists():
                raise CommandError(
                    f"the shop in database {settings.DATABASES['default']['NAME']!r} is not empty; "
                    "--replace deletes everything in it first"
                )
            written = self._write(
                seed=options["seed"],
                products=options["products"],
                users=options["users"],
                orders=options["orders"],
                password=options["password"],
            )
        load.analyze()
        counts = ", ".join(f"{count:,} {name}" for name, count in written.items())
        seconds = time.perf_counter() - started
        self.stdout.write(f"{counts}, {drawn} new pictures in {seconds:.1f} s")

    def _write(self, *, seed: int, products: int, users: int, orders: int, password: str) -> dict[str, int]:
        # A generator of its own for each part: more users must not change the products.
        def rng(part: str) -> Random:
            return Random(f"{seed}/{part}")  # noqa: S311  (demo data, wants to be predictable)

        salt = "".join(rng("salt").choices(string.ascii_letters + string.digits, k=22))
        hashed = make_password(password, salt=salt)
        user_rows = list(people.users(rng("users"), users))
        shoppers = user_rows[1:]
        product_rows = list(catalogue.products(rng("products"), products))
        authors = [(row.id, User(full_name=row.full_name, email=row.email).public_name) for row in shoppers]
        pictured = catalogue.images(rng("images"), product_rows, variants=pictures.VARIANTS)
        reviewed = catalogue.reviews(rng("reviews"), product_rows, authors)
        resident = list(people.addresses(rng("addresses"), shoppers))
        done = trade.past(rng("trade"), count=orders, products=product_rows, addresses=resident)
        return {
            "users": load.copy(User, people.UserRow, user_rows, is_active=True, password=hashed),
            "addresses": load.copy(Address, people.AddressRow, resident, country="DE"),
            "categories": load.copy(Category, catalogue.CategoryRow, catalogue.categories()),
            "products": load.copy(Product, catalogue.ProductRow, product_rows),
            "images": load.copy(ProductImage, catalogue.ImageRow, pictured),
            "reviews": load.copy(Review, catalogue.ReviewRow, reviewed),
            "stock items": load.copy(StockItem, trade.StockRow, done.stock),
            "movements": load.copy(StockMovement, trade.MovementRow, done.movements),
            "orders": load.copy(Order, trade.OrderRow, done.orders),
            "order lines": load.copy(OrderLine, trade.OrderLineRow, done.lines),
            "order events": load.copy(OrderEvent, trade.OrderEventRow, done.events),
            "payments": load.copy(Payment, trade.PaymentRow, done.payments),
            "payment events": load.copy(PaymentEvent, trade.PaymentEventRow, done.answers),
        }
