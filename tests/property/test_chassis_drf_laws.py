"""`chassis.drf` against its originals: Django and REST framework themselves, on generated input."""

import string
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import TooManyFieldsSent, ValidationError
from django.core.paginator import InvalidPage, Paginator
from django.http import Http404, HttpRequest, QueryDict
from django.http.request import split_domain_port, validate_host
from django.utils.encoding import escape_uri_path
from django.utils.encoding import iri_to_uri as django_iri_to_uri
from django.utils.http import escape_leading_slashes
from django_filters import CharFilter, DateFilter, NumberFilter
from hypothesis import example, given
from hypothesis import strategies as st
from rest_framework.exceptions import NotAcceptable, NotFound
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.pagination import PageNumberPagination
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.utils.urls import remove_query_param, replace_query_param

from chassis.drf import forms, pagination, urls
from chassis.drf.answers import ApiError, render_json
from chassis.drf.negotiation import Accepted, negotiate
from chassis.drf.query import TooManyFieldsError, parse_query
from chassis.drf.request import ApiRequest, host_allowed

_ASCII = "".join(chr(code) for code in range(0x21, 0x7F))
query_strings = st.text(alphabet=_ASCII, max_size=60) | st.lists(
    st.tuples(
        st.sampled_from(["page", "page_size", "a", "b%20", "ü", ""]), st.text(alphabet=_ASCII, max_size=8)
    ),
    max_size=5,
).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs))
paths = st.text(alphabet=string.ascii_letters + " /%;=?#[]üé&+~'\"<>\\^`{|}", max_size=20).map(
    lambda t: "/" + t
)
raw_values = st.text(max_size=12) | st.sampled_from(
    [
        "",
        " ",
        "\x00",
        "1e50",
        "1e51",
        "NaN",
        "-Infinity",
        "sNaN",
        "1_0",
        "٢٣",
        " 5 ",
        "+1",
        ".5",
        "0x1",
        "1e400",
    ]
)


def _django_request(query_string: str, path: str = "/x/") -> Request:
    request = HttpRequest()
    request.method = "GET"
    request.path = request.path_info = path
    request.META = {"QUERY_STRING": query_string, "HTTP_HOST": "localhost:8000", "SERVER_NAME": "x"}
    request.GET = QueryDict(query_string)
    return Request(request)


@given(query_strings | st.text(max_size=30))
@example("a=%FF&a=%C3%BC&&=;b;c=1")
def test_query_strings_are_read_as_django_reads_them(query_string: str) -> None:
    theirs = QueryDict(query_string)
    ours = parse_query(query_string)
    assert {name: list(values) for name, values in ours.values.items()} == dict(theirs.lists())
    for name in theirs:
        # an empty list of values cannot come out of a query string, so get() always has a last value
        assert ours.get(name) == theirs.get(name)
    assert ours.get("no such name") is None


@pytest.mark.parametrize("amount", [999, 1000, 1001])
def test_too_many_parameters_are_refused_where_django_refuses_them(amount: int) -> None:
    query_string = "&".join(["a=1"] * amount)
    theirs = _outcome(lambda: QueryDict(query_string), TooManyFieldsSent)
    ours = _outcome(lambda: parse_query(query_string), TooManyFieldsError)
    assert isinstance(ours, TooManyFieldsError) == isinstance(theirs, TooManyFieldsSent) == (amount > 1000)


@given(path=paths, query_string=query_strings)
def test_absolute_urls_and_redirects(path: str, query_string: str) -> None:
    theirs = _django_request(query_string, path)._request
    ours = ApiRequest("GET", "http", "localhost:8000", path, query_string, None)
    assert urls.append_slash(path, query_string) == escape_leading_slashes(
        theirs.get_full_path(force_append_slash=True)
    )
    assert urls.full_path(path, query_string) == theirs.get_full_path()
    if "/./" not in path and "/../" not in path and not path.startswith("//"):
        assert ours.url == theirs.build_absolute_uri()


@given(st.text(max_size=30))
def test_escapes(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()  # lone surrogates do not arrive over HTTP
    assert urls.iri_to_uri(text) == django_iri_to_uri(text)
    assert urls.full_path(text, "") == escape_uri_path(text)


@given(query_string=query_strings, number=st.integers(1, 10**6))
def test_page_links(query_string: str, number: int) -> None:
    url = f"http://localhost:8000/api/x/?{query_string}"
    # urlsplit refuses some texts (an unclosed bracket); then both refuse
    replaced = _outcome(lambda: urls.replace_parameter(url, "page", str(number)), ValueError)
    assert str(replaced) == str(_outcome(lambda: replace_query_param(url, "page", number), ValueError))
    removed = _outcome(lambda: urls.remove_parameter(url, "page"), ValueError)
    assert str(removed) == str(_outcome(lambda: remove_query_param(url, "page"), ValueError))


class _Pagination(PageNumberPagination):
    page_size = 24
    page_size_query_param = "page_size"
    max_page_size = 100


@given(
    page=st.none() | raw_values | st.integers(-2, 9).map(str) | st.just("last"),
    size=st.none() | raw_values | st.integers(-2, 120).map(str),
    count=st.integers(0, 300),
)
def test_pages(page: str | None, size: str | None, count: int) -> None:
    pairs = {"page": page, "page_size": size}
    query_string = QueryDict(mutable=True)
    query_string.update({name: value for name, value in pairs.items() if value is not None})
    request = _django_request(query_string.urlencode())
    theirs = _Pagination()
    items: Any = list(range(count))  # stands in for a queryset
    query = parse_query(query_string.urlencode())
    ours_size = pagination.page_size(query, pagination.PageRules(24, 100))
    assert ours_size == theirs.get_page_size(request)
    shown = _outcome(lambda: theirs.paginate_queryset(items, request), NotFound)
    found = _outcome(lambda: pagination.find_page(query, count=count, size=ours_size), ApiError)
    if isinstance(shown, NotFound):
        assert isinstance(found, ApiError)
        assert (found.status, found.body) == (404, {"detail": str(shown.detail)})
        return
    assert items[found.offset : found.offset + found.size] == shown
    url = request.build_absolute_uri()
    assert pagination.envelope(found, [], url) == theirs.get_paginated_response([]).data


@given(count=st.integers(0, 50), size=st.integers(1, 20))
def test_every_row_is_on_exactly_one_page(count: int, size: int) -> None:
    first = pagination.Page(1, size, count)
    rows = [
        row
        for number in range(1, first.pages + 1)
        for row in range(count)[(number - 1) * size : number * size]
    ]
    assert rows == list(range(count))
    with pytest.raises(InvalidPage):
        Paginator(range(count), size).page(first.pages + 1)


_tokens = st.sampled_from(
    [
        "application/json", "application/*", "*/*", "*", "text/html", "application/JSON", "*/json", "",
        "application/json; indent=4", "application/json;indent=0", "*/*; indent=3", "application/xml",
        "application/*;q=0.1;indent=2", "application/json; indent=99", 'application/json; indent="3"',
        "application/json; indent*=utf-8''2", "application/json; indent*=nope''2", "application/json; x",
        "; indent=1", "a" * 300,
    ]
)  # fmt: skip


@given(
    accept=st.none() | st.lists(_tokens, max_size=4).map(", ".join) | st.text(alphabet=_ASCII, max_size=40),
    wanted=st.none() | st.sampled_from(["", "json", "JSON", "api", "xml"]),
)
def test_negotiation(accept: str | None, wanted: str | None) -> None:
    request = _django_request("" if wanted is None else f"format={wanted}")
    if accept is not None:
        request._request.META["HTTP_ACCEPT"] = accept
    renderers = [JSONRenderer()]
    theirs = _outcome(
        lambda: DefaultContentNegotiation().select_renderer(request, renderers), (NotAcceptable, Http404)
    )
    ours = _outcome(lambda: negotiate(accept, wanted), ApiError)
    match theirs:
        case NotAcceptable():
            assert (ours.status, ours.body) == (406, {"detail": str(theirs.detail)})
        case Http404():
            assert (ours.status, ours.body) == (404, {"detail": str(NotFound.default_detail)})
        case renderer, media_type:
            assert isinstance(ours, Accepted)
            if _one_best(accept):
                assert ours.indent == renderer.get_indent(media_type, {})


def _one_best(accept: str | None) -> bool:
    # among equally specific ranges REST framework takes any, it keeps them in a set
    return accept is None or len({token.strip() for token in accept.split(",") if token.strip()}) <= 1


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(json_values, st.none() | st.integers(1, 8))
@example({"a": "\u2028\u2029</script>\x00"}, None)
def test_json_bytes(value: Any, indent: int | None) -> None:
    media_type = "application/json" if indent is None else f"application/json; indent={indent}"
    try:
        theirs = JSONRenderer().render({"v": value}, media_type, {})
    except UnicodeEncodeError:  # lone surrogates, which no database text holds
        with pytest.raises(UnicodeEncodeError):
            render_json({"v": value}, indent)
        return
    assert render_json({"v": value}, indent) == theirs


@given(raw_values)
def test_form_fields(raw: str) -> None:
    cleaners: list[tuple[Any, Callable[[str | None], Any]]] = [
        (CharFilter().field, forms.clean_text),
        (NumberFilter().field, forms.clean_number),
        (DateFilter().field, lambda value: forms.clean_date(value, forms.BRITISH_DATES)),
    ]
    for field, clean in cleaners:
        _same_cleaning(field, clean, raw)
        _same_cleaning(field, clean, None)


@given(
    st.dates(), st.sampled_from(["%Y-%m-%d", "%d/%m/%Y", "%d/%m/%y", "%m/%d/%Y", "%b %d %Y", " %Y-%m-%d "])
)
def test_dates(day: Any, pattern: str) -> None:
    assert settings.LANGUAGE_CODE == "en-gb"
    _same_cleaning(
        DateFilter().field,
        lambda value: forms.clean_date(value, forms.BRITISH_DATES),
        day.strftime(pattern),
    )


def _same_cleaning(field: Any, clean: Callable[[str | None], Any], raw: str | None) -> None:
    theirs = _outcome(lambda: field.clean(raw), ValidationError)
    ours = _outcome(lambda: clean(raw), forms.FieldError)
    if isinstance(theirs, ValidationError):
        assert isinstance(ours, forms.FieldError)
        assert [str(ours)] == theirs.messages
    elif theirs in (None, ""):
        assert ours is None
    else:
        assert (type(ours), ours) == (type(theirs), theirs)


@given(
    st.sampled_from(
        ["localhost", "LOCALHOST:80", "[::1]:8000", "a.example.com", "example.com.", "x", "", "a_b", "a:b"]
    )
    | st.text(alphabet="abc.-:[]_ @", max_size=12)
)
def test_hosts(host: str) -> None:
    allowed = ["localhost", "[::1]", ".example.com", "abc"]
    domain, _ = split_domain_port(host)
    assert host_allowed(host, allowed) == bool(domain and validate_host(domain, allowed))
    assert host_allowed(host, ["*"]) == bool(domain)


def _outcome(call: Callable[[], Any], refusals: type[Exception] | tuple[type[Exception], ...]) -> Any:
    """What `call` returns, or the refusal it raised."""
    try:
        return call()
    except refusals as error:
        return error
