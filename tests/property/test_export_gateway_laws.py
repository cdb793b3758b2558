"""The written HTTPRoutes choose as the routes file does. The reference beside it reads them by the published order of
precedence and by nothing else."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from strangler_proxy.export.gateway_api import Cluster, gateway_file
from strangler_proxy.routes import parse_with_places
from strangler_proxy.table import Group, Routes

_SEGMENTS = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=3)
_METHODS = st.sampled_from(["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PROPFIND"])


def _path(parts: list[str], ending: str) -> str:
    return "/" + "/".join(parts) + ending


_PATTERNS = st.one_of(st.just("/*"), st.builds(_path, _SEGMENTS, st.sampled_from(["", "/", "/*"])))
_ASKED = st.one_of(st.just("/"), st.builds(_path, _SEGMENTS, st.sampled_from(["", "/", "/x"])))


@st.composite
def _files(draw: st.DrawFn) -> str:
    patterns = draw(st.lists(_PATTERNS, min_size=2, max_size=6, unique=True))
    cut = draw(st.integers(1, len(patterns) - 1))
    lines = ["version: 1", "default: monolith", "backends:"]
    lines += [f"  {name}: {{url: 'http://{name}:80'}}" for name in ("monolith", "first", "second")]
    lines.append("groups:")
    for name, paths in (("first", patterns[:cut]), ("second", patterns[cut:])):
        owner = draw(st.sampled_from([name, "monolith"]))
        percent = draw(st.sampled_from(["0", "0.01", "37.5", "100"]))
        shadow = draw(st.sampled_from(["", ", shadow: {percent: 3}"]))
        header = draw(st.sampled_from(["", ", overrides: {header: X-Side}"]))
        lines.append(
            f"  {name}: {{backend: {name}, paths: {paths}, percent: {percent}, owner: {owner}{shadow}{header}}}"
        )
    return "\n".join(lines)


def _rank(match: dict[str, Any], path: str, method: str, side: str) -> tuple[int, int, int, int] | None:
    """How specific a match is, None when it does not match: HTTPRouteRule's documentation, v1."""
    kind, value = match["path"]["type"], match["path"]["value"]
    if kind == "Exact":
        fits = path == value
    else:  # by whole segments, a trailing slash does not count
        bare = value.rstrip("/")
        fits = path == bare or path.startswith(bare + "/")
    headers = match.get("headers", [])
    fits = fits and match.get("method", method) == method
    fits = fits and all(header == {"type": "Exact", "name": "X-Side", "value": side} for header in headers)
    return (kind == "Exact", len(value), "method" in match, len(headers)) if fits else None


def _weights(manifests: list[dict[str, Any]], path: str, method: str, side: str) -> dict[str, int]:
    found = [
        (rank, rule)
        for manifest in manifests
        if manifest["kind"] == "HTTPRoute"
        for rule in manifest["spec"]["rules"]
        for match in rule["matches"]
        if (rank := _rank(match, path, method, side)) is not None
    ]
    best = max(rank for rank, _ in found)
    (rule,) = {id(rule): rule for rank, rule in found if rank == best}.values()
    parts = {ref["name"]: ref.get("weight", 1) for ref in rule["backendRefs"]}
    whole = sum(parts.values())
    return {name: weight * 10_000 // whole for name, weight in parts.items() if weight}


def _wanted(routes: Routes, group: Group | None, method: str, side: str) -> dict[str, int]:
    if group is None:
        return {routes.default: 10_000}
    if method not in ("GET", "HEAD", "OPTIONS"):
        return {group.owner: 10_000}
    if group.overrides.header:
        if side in ("canary", group.backend):
            return {group.backend: 10_000}
        if side in ("control", routes.default):
            return {routes.default: 10_000}
    parts = {routes.default: 10_000 - group.threshold, group.backend: group.threshold}
    return {name: weight for name, weight in parts.items() if weight}


@settings(max_examples=150, deadline=None)
@given(
    _files(),
    st.lists(
        st.tuples(_ASKED, _METHODS, st.sampled_from(["", "canary", "control", "first", "monolith", "other"])),
        min_size=20,
        max_size=20,
    ),
)
def test_every_request_meets_the_sides_that_the_routes_give_it(
    text: str, asked: list[tuple[str, str, str]]
) -> None:
    routes, places = parse_with_places(text.encode(), "routes.yaml")
    written = gateway_file(routes, places, Cluster()).text
    manifests = [item for item in YAML(typ="safe").load_all(written) if item is not None]
    for path, method, side in asked:
        group = routes.lookup(path.encode())
        assert _weights(manifests, path, method, side) == _wanted(routes, group, method, side), (
            path, method, side,
        )  # fmt: skip
