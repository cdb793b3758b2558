"""Accounts in the admin."""

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin

from monolith.accounts.models import Address, User


class AddressInline(admin.StackedInline[Address, User]):
    """Addresses on the user's page."""

    model = Address
    extra = 0


@admin.register(User)
class UserAdmin(DjangoUserAdmin[User]):
    """Users, known by e-mail address."""

    list_display = ["email", "full_name", "is_staff", "is_active", "date_joined", "last_login"]
    list_filter = ["is_staff", "is_active"]
    search_fields = ["email", "full_name"]
    ordering = ["-date_joined"]
    readonly_fields = ["last_login", "date_joined"]
    show_full_result_count = False
    inlines = [AddressInline]
    fieldsets = [
        (None, {"fields": ["email", "password", "full_name"]}),
        ("Permissions", {"fields": ["is_active", "is_staff", "is_superuser", "groups", "user_permissions"]}),
        ("Dates", {"fields": ["last_login", "date_joined"]}),
    ]
    add_fieldsets = [
        (None, {"classes": ["wide"], "fields": ["email", "full_name", "password1", "password2"]})
    ]


@admin.register(Address)
class AddressAdmin(admin.ModelAdmin[Address]):
    """All addresses."""

    list_display = ["recipient", "line1", "postcode", "city", "country", "is_default", "user"]
    list_filter = ["country"]
    list_select_related = ["user"]
    search_fields = ["recipient", "city", "user__email"]
    autocomplete_fields = ["user"]
    readonly_fields = ["created_at"]
