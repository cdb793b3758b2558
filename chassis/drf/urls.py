"""URLs as Django writes them: absolute ones for the client, and page links with one parameter exchanged."""

from urllib.parse import parse_qs, quote, urlencode, urlsplit, urlunsplit


def full_path(path: str, query_string: str, *, append_slash: bool = False) -> str:
    """`HttpRequest.get_full_path`: `path` (decoded) and `query_string`, escaped for a header or a link."""
    slash = "/" if append_slash and not path.endswith("/") else ""
    query = f"?{iri_to_uri(query_string)}" if query_string else ""
    return quote(path, safe="/:@&+$,-_.!~*'()") + slash + query


def iri_to_uri(iri: str) -> str:
    """`django.utils.encoding.iri_to_uri`: percent-encode what a URI may not hold, keep `%` as it is."""
    return quote(iri, safe="/#%[]=:;$&()+,!?*@'~")


def append_slash(path: str, query_string: str) -> str:
    """Where `CommonMiddleware` redirects a path without its final slash to."""
    target = full_path(path, query_string, append_slash=True)
    # two leading slashes would send the browser to another host
    return f"/%2F{target.removeprefix('//')}" if target.startswith("//") else target


def replace_parameter(url: str, name: str, value: str) -> str:
    """`rest_framework.utils.urls.replace_query_param`. The parameters come out sorted by name."""
    scheme, netloc, path, query, fragment = urlsplit(url)
    parameters = parse_qs(query, keep_blank_values=True)
    parameters[name] = [value]
    return urlunsplit((scheme, netloc, path, urlencode(sorted(parameters.items()), doseq=True), fragment))


def remove_parameter(url: str, name: str) -> str:
    """`rest_framework.utils.urls.remove_query_param`. The parameters come out sorted by name."""
    scheme, netloc, path, query, fragment = urlsplit(url)
    parameters = parse_qs(query, keep_blank_values=True)
    parameters.pop(name, None)
    return urlunsplit((scheme, netloc, path, urlencode(sorted(parameters.items()), doseq=True), fragment))
