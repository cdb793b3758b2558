"""Admin pages for rows that only services write."""

from django.http import HttpRequest


class ReadOnlyAdmin:
    """Mixin before ModelAdmin: staff may look, nobody adds, changes or deletes."""

    def has_add_permission(self, _request: HttpRequest, _obj: object = None) -> bool:
        """Never."""
        return False

    def has_change_permission(self, _request: HttpRequest, _obj: object = None) -> bool:
        """Never."""
        return False

    def has_delete_permission(self, _request: HttpRequest, _obj: object = None) -> bool:
        """Never."""
        return False
