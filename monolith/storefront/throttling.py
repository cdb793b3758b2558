"""The API's limits on writes, for pages: one budget for both, or the pages would be the way round it."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, cast

from django.http import HttpRequest, HttpResponse

from monolith.config.rest import WriteThrottle
from monolith.storefront.pages import render_plain

_P = ParamSpec("_P")
View = Callable[Concatenate[HttpRequest, _P], HttpResponse]


@dataclass(frozen=True, slots=True)
class _Scope:
    """All that the throttle asks a view for."""

    throttle_scope: str


def throttled(scope: str) -> Callable[[View[_P]], View[_P]]:
    """Decorator: unsafe requests beyond the rate of `scope` are answered with 429 and `Retry-After`."""

    def decorate(view: View[_P]) -> View[_P]:
        @functools.wraps(view)
        def limited(request: HttpRequest, /, *args: _P.args, **kwargs: _P.kwargs) -> HttpResponse:
            throttle = WriteThrottle()
            # it reads `method`, `META` and `user`, which Django's request has as DRF's does
            if throttle.allow_request(cast("Any", request), cast("Any", _Scope(scope))):
                return view(request, *args, **kwargs)
            seconds = max(1, math.ceil(throttle.wait() or 0))
            response = render_plain(
                "failures/throttled.html",
                title="Too many attempts",
                context={"minutes": math.ceil(seconds / 60)},
                status=429,
            )
            response["Retry-After"] = str(seconds)
            return response

        return limited

    return decorate
