"""The app `strangler_seam`."""

from django.apps import AppConfig

from strangler_seam import logs


class StranglerSeamConfig(AppConfig):
    """Registers the app: no models, one middleware, one field in log records."""

    name = "strangler_seam"
    verbose_name = "Seam between the monolith and its services"

    def ready(self) -> None:
        """Let log records carry the request's id."""
        logs.add_request_id_to_records()
