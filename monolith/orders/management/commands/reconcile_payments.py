"""`reconcile_payments`: resolve payments whose answer was lost. Run it every few minutes."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand

from monolith.orders.checkout import reconcile
from monolith.payments.provider import configured_provider


class Command(BaseCommand):
    """Safe to run at any time and more than once; see monolith.orders.checkout.reconcile."""

    help = "Ask the payment provider what became of payments without an answer, and settle their orders."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The age from which on a payment counts as unanswered."""
        parser.add_argument(
            "--older-than",
            type=int,
            default=120,
            metavar="SECONDS",
            help="leave younger payments alone (120)",
        )

    def handle(self, **options: Any) -> None:
        """One line for each payment."""
        lines = 0
        for line in reconcile(
            provider=configured_provider(), older_than=timedelta(seconds=options["older_than"])
        ):
            self.stdout.write(line)
            lines += 1
        if not lines:
            self.stdout.write("nothing to reconcile")
