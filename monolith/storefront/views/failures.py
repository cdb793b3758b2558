"""Pages for what went wrong. They ask neither the database nor the session: those may be what went wrong.

Named by `handler404` and its like in `monolith.config.urls`, and by `CSRF_FAILURE_VIEW`. Below `/api/`
clients keep getting Django's own bare answers.
"""

from django.http import HttpRequest, HttpResponse
from django.views import defaults

from monolith.config import logs
from monolith.storefront.pages import render_plain


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """404."""
    if _for_programs(request):
        return defaults.page_not_found(request, exception)
    return render_plain("failures/not_found.html", title="Page not found", status=404)


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """403."""
    if _for_programs(request):
        return defaults.permission_denied(request, exception)
    return render_plain("failures/forbidden.html", title="Not allowed", status=403)


def stale_form(_request: HttpRequest, reason: str = "") -> HttpResponse:
    """403 for a form without a valid CSRF token: nearly always a page that lay open over a login."""
    return render_plain("failures/stale_form.html", title="Please try again", status=403)


def broken(request: HttpRequest) -> HttpResponse:
    """500, with the id that leads to the log."""
    if _for_programs(request):
        return defaults.server_error(request)
    return render_plain(
        "failures/broken.html",
        title="Something went wrong",
        context={"request_id": logs.request_id.get()},
        status=500,
    )


def _for_programs(request: HttpRequest) -> bool:
    return request.path.startswith("/api/")
