"""Payments in the admin: to look at."""

from django.contrib import admin

from monolith.config.admin import ReadOnlyAdmin
from monolith.payments.models import Payment, PaymentEvent


class PaymentEventInline(ReadOnlyAdmin, admin.TabularInline[PaymentEvent, Payment]):
    """The provider's answers."""

    model = PaymentEvent
    extra = 0


@admin.register(Payment)
class PaymentAdmin(ReadOnlyAdmin, admin.ModelAdmin[Payment]):
    """All payments, newest first."""

    list_display = ["order", "status", "amount", "currency", "decline_code", "created_at"]
    list_filter = ["status"]
    list_select_related = ["order"]
    search_fields = ["order__number", "key", "reference"]
    date_hierarchy = "created_at"
    show_full_result_count = False
    inlines = [PaymentEventInline]


@admin.register(PaymentEvent)
class PaymentEventAdmin(ReadOnlyAdmin, admin.ModelAdmin[PaymentEvent]):
    """All answers."""

    list_display = ["received_at", "payment", "outcome", "applied", "event_id"]
    list_filter = ["outcome", "applied"]
    list_select_related = ["payment"]
    search_fields = ["event_id", "payment__order__number"]
    date_hierarchy = "received_at"
