"""`send_notifications`: send queued e-mails. Run it every minute."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from monolith.notifications import selectors, services


class Command(BaseCommand):
    """Safe to run more than once at the same time."""

    help = "Send queued e-mails; what fails is tried again by the next run."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """How many at most."""
        parser.add_argument("--limit", type=int, default=500)

    def handle(self, **options: Any) -> None:
        """Report how many were sent and how many wait."""
        sent = services.send_queued(limit=options["limit"])
        self.stdout.write(f"{sent} sent, {selectors.queued().count()} still queued")
