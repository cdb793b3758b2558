"""Notifications in the admin: to look at."""

from django.contrib import admin

from monolith.config.admin import ReadOnlyAdmin
from monolith.notifications.models import Notification


@admin.register(Notification)
class NotificationAdmin(ReadOnlyAdmin, admin.ModelAdmin[Notification]):
    """All e-mails, newest first."""

    list_display = ["created_at", "kind", "recipient", "subject", "status", "attempts", "sent_at"]
    list_filter = ["status", "kind"]
    search_fields = ["recipient", "subject", "order__number"]
    date_hierarchy = "created_at"
    show_full_result_count = False
