"""Static assets and product pictures, answered by the shop itself.

WhiteNoise and `django.views.static.serve` stream files with synchronous iterators, which ASGI must first
collect in a thread (and Django warns so). The shop's files are small, so their bytes are put into the
response at once.
"""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import SuspiciousFileOperation
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotModified
from django.utils._os import safe_join
from django.utils.http import content_disposition_header, http_date
from django.views.decorators.http import require_safe
from django.views.static import was_modified_since
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.responders import StaticFile

_PICTURES = {".webp": "image/webp", ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


class StaticFilesMiddleware(WhiteNoiseMiddleware):  # type: ignore[misc]  # its base is untyped
    """WhiteNoise, without streaming."""

    @staticmethod
    def serve(static_file: StaticFile, request: HttpRequest) -> HttpResponse:
        """The asset, with WhiteNoise's caching headers, ranges and encodings."""
        answer = static_file.get_response(request.method, request.META)
        content: Any = b""
        if answer.file is not None:
            with answer.file:
                content = answer.file.read()
        response = HttpResponse(content, status=int(answer.status))
        del response["Content-Type"]
        for name, value in answer.headers:
            response[name] = value
        return response


@require_safe
def media(request: HttpRequest, path: str) -> HttpResponse:
    """A product picture from MEDIA_ROOT. Anything that is not a picture is sent as a download."""
    try:
        file = Path(safe_join(settings.MEDIA_ROOT, path))
    except SuspiciousFileOperation:
        raise Http404 from None
    if not file.is_file():
        raise Http404
    modified = file.stat().st_mtime
    if not was_modified_since(request.headers.get("If-Modified-Since"), modified):
        return HttpResponseNotModified()
    kind = _PICTURES.get(file.suffix.lower())
    response = HttpResponse(file.read_bytes(), content_type=kind or "application/octet-stream")
    response["Last-Modified"] = http_date(modified)
    response["Cache-Control"] = "public, max-age=3600"
    if kind is None and (disposition := content_disposition_header(True, file.name)):
        response["Content-Disposition"] = disposition
    return response
