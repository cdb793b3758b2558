"""Login, registration, the shopper's own page and addresses."""

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from monolith.accounts import selectors, services
from monolith.errors import ShopError
from monolith.orders.selectors import orders_of
from monolith.storefront.forms import AddressForm, LoginForm, RegistrationForm
from monolith.storefront.pages import Crumb, members_only, render_page, shopper, way_back
from monolith.storefront.throttling import throttled


@sensitive_post_parameters("password")
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@throttled("login")
def log_in(request: HttpRequest) -> HttpResponse:
    """Starts a session; the anonymous cart comes along."""
    back = way_back(request, "storefront:account")
    if request.user.is_authenticated:
        return redirect(back)
    form = LoginForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        try:
            user = services.log_in(request, **form.cleaned_data)
        except ShopError as refusal:
            form.add_error(None, refusal.message)
        else:
            messages.success(request, f"Welcome back, {user.public_name}")
            return redirect(back)
    return render_page(
        request,
        "login.html",
        title="Log in",
        crumbs=[Crumb("Log in", reverse("storefront:login"))],
        context={"form": form, "next": back},
        status=422 if form.errors else 200,
    )


@sensitive_post_parameters("password")
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@throttled("register")
def register(request: HttpRequest) -> HttpResponse:
    """Makes an account and starts a session."""
    back = way_back(request, "storefront:account")
    if request.user.is_authenticated:
        return redirect(back)
    form = RegistrationForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        try:
            user = services.register(**form.cleaned_data)
        except ValidationError as weak:
            form.add_error("password", weak.messages)
        except services.EmailTakenError as refusal:
            form.add_error("email", refusal.message)
        else:
            services.start_session(request, user)
            messages.success(request, f"Welcome, {user.public_name}")
            return redirect(back)
    return render_page(
        request,
        "register.html",
        title="Create an account",
        crumbs=[Crumb("Create an account", reverse("storefront:register"))],
        context={"form": form, "next": back},
        status=422 if form.errors else 200,
    )


@require_POST
def log_out(request: HttpRequest) -> HttpResponse:
    """Ends the session."""
    services.log_out(request)
    messages.success(request, "You are logged out.")
    return redirect("storefront:home")


@never_cache
@require_safe
@members_only
def account(request: HttpRequest) -> HttpResponse:
    """Who one is here, the latest orders, the addresses."""
    user = shopper(request)
    return render_page(
        request,
        "account.html",
        title="Your account",
        crumbs=_crumbs(),
        context={"orders": orders_of(user)[:3], "addresses": selectors.addresses_of(user)},
    )


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@members_only
def new_address(request: HttpRequest) -> HttpResponse:
    """Adds an address; one that is there already is not added again."""
    user = shopper(request)
    form = AddressForm(
        request.POST if request.method == "POST" else None, initial={"recipient": user.full_name}
    )
    if form.is_valid():
        fields = form.cleaned_data
        same = {name: value for name, value in fields.items() if name not in {"label", "is_default"}}
        if not selectors.addresses_of(user).filter(**same).exists():
            services.add_address(user, fields)
        return redirect(way_back(request, "storefront:account"))
    return _address_page(request, form, title="New address")


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@members_only
def address(request: HttpRequest, address_id: int) -> HttpResponse:
    """Changes an address, or deletes it."""
    found = selectors.address_of(shopper(request), address_id)
    if found is None:
        raise Http404
    if request.method == "POST" and "delete" in request.POST:
        services.delete_address(found)
        messages.success(request, "The address was deleted.")
        return redirect("storefront:account")
    form = AddressForm(request.POST if request.method == "POST" else None, instance=found)
    if form.is_valid():
        services.update_address(found, form.cleaned_data)
        messages.success(request, "The address was saved.")
        return redirect(way_back(request, "storefront:account"))
    return _address_page(request, form, title="Change address")


def _address_page(request: HttpRequest, form: AddressForm, *, title: str) -> HttpResponse:
    back = way_back(request, "storefront:account")
    return render_page(
        request,
        "address.html",
        title=title,
        crumbs=[*_crumbs(), Crumb(title, request.path)],
        context={"form": form, "next": back, "for_checkout": back == reverse("storefront:checkout")},
        status=422 if form.errors else 200,
    )


def _crumbs() -> list[Crumb]:
    return [Crumb("Your account", reverse("storefront:account"))]
