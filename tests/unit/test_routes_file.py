"""Every fault a routes file can have is refused at its line, with its field and a remedy; what is legal is
understood."""

from decimal import Decimal
from pathlib import Path

import pytest

from chassis.problems import InvalidFileError
from strangler_proxy.routes import load_routes, parse_routes, version_of
from strangler_proxy.table import Routes, StickyKind

GOOD = """\
version: 1
backends:
  monolith: {url: "http://127.0.0.1:8001"}
  catalog:
    url: http://127.0.0.1:8101
default: monolith
groups:
  catalog:
    backend: catalog
    paths:
      - /api/products
      - /api/products/*
    percent: 25
    owner: monolith
    sticky: user
    fallback: true
"""

# name: (text replaced, by what, line, field, part of message or remedy)
FAULTS: dict[str, tuple[str, str, int, str, str]] = {
    "unknown key at the top": ("default: monolith", "default: monolith\nroute: x", 7, "route", "unknown key"),
    "unknown key in a group": (
        "    percent", "    percnt: 3\n    percent",
        13, "groups.catalog.percnt", "spelling",
    ),
    "unknown key in a backend": (
        "    url: http", "    uri: x\n    url: http", 5, "backends.catalog.uri", "unknown key"
    ),
    "missing percent": ("    percent: 25\n", "", 8, "groups.catalog.percent", "missing key"),
    "missing default": ("default: monolith\n", "", 1, "default", "missing key"),
    "missing version": ("version: 1\n", "", 1, "version", "missing key"),
    "version of the future": ("version: 1", "version: 2", 1, "version", "1"),
    "percent 101": ("percent: 25", "percent: 101", 13, "groups.catalog.percent", "between 0 and 100"),
    "percent -1": ("percent: 25", "percent: -1", 13, "groups.catalog.percent", "between 0 and 100"),
    "percent too fine": ("percent: 25", "percent: 0.001", 13, "groups.catalog.percent", "steps of 0.01"),
    "percent not a number": ("percent: 25", "percent: all", 13, "groups.catalog.percent", "a number"),
    "percent a truth value": ("percent: 25", "percent: true", 13, "groups.catalog.percent", "a number"),
    "percent infinite": ("percent: 25", "percent: .inf", 13, "groups.catalog.percent", "between 0 and 100"),
    "unknown backend": ("backend: catalog", "backend: catalogue", 9, "groups.catalog.backend", "name one of"),
    "backend is the default": (
        "backend: catalog", "backend: monolith",
        9, "groups.catalog.backend", "to move",
    ),
    "unknown default": ("default: monolith", "default: mono", 6, "default", "unknown backend"),
    "foreign owner": ("owner: monolith", "owner: orders", 14, "groups.catalog.owner", "default backend"),
    "unknown sticky": ("sticky: user", "sticky: users", 15, "groups.catalog.sticky", "sticky is one of"),
    "sticky header without a name": (
        "sticky: user", "sticky: 'header:'",
        15, "groups.catalog.sticky", "NAME",
    ),
    "sticky cookie with a bad name": (
        "sticky: user", "sticky: 'cookie:a b'", 15, "groups.catalog.sticky", "NAME"
    ),
    "fallback not a truth value": ("fallback: true", "fallback: 1", 16, "groups.catalog.fallback", "bool"),
    "no paths": (
        "    paths:\n      - /api/products\n      - /api/products/*\n", "    paths: []\n", 10,
        "groups.catalog.paths", "at least 1",
    ),
    "path without a slash": ("- /api/products\n", "- api\n", 11, "groups.catalog.paths.0", "begins with /"),
    "path with a query": ("- /api/products\n", "- /api?x\n", 11, "groups.catalog.paths.0", "query"),
    "star in the middle": ("- /api/products\n", "- /api/*/x\n", 11, "groups.catalog.paths.0", "*"),
    "star glued to a word": ("- /api/products\n", "- /api/prod*\n", 11, "groups.catalog.paths.0", "*"),
    "path with a blank": ("- /api/products\n", "- /a b\n", 11, "groups.catalog.paths.0", "visible ASCII"),
    "path twice": ("- /api/products\n", "- /api/products/*\n", 12, "groups.catalog.paths.1", "belongs to"),
    "backend without a place": (
        "    url: http://127.0.0.1:8101", "    limits: {}", 4, "backends.catalog", "one of url",
    ),
    "backend with two places": (
        "    url: http://127.0.0.1:8101", "    url: http://h:1\n    instances: [http://h:1]",
        4, "backends.catalog", "url and instances",
    ),
    "instance twice": (
        "url: http://127.0.0.1:8101", "instances: [http://h, http://h:80/]", 4, "backends.catalog", "twice",
    ),
    "discovery of nothing": (
        "url: http://127.0.0.1:8101", "discover: {}", 5, "backends.catalog.discover", "one of file, dns",
    ),
    "discovery twice": (
        "url: http://127.0.0.1:8101", 'discover: {file: a, dns: "b:1"}',
        5, "backends.catalog.discover", "one of file, dns",
    ),
    "discovery without a port": (
        "url: http://127.0.0.1:8101", "discover: {dns: catalog}", 5, "backends.catalog.discover.dns", "HOST:PORT",
    ),
    "discovery too often": (
        "url: http://127.0.0.1:8101", 'discover: {dns: "b:1", every: 9}', 5, "backends.catalog.discover", "100",
    ),
    "a variable that is none": (
        "url: http://127.0.0.1:8101", "discover: {environment: 1A}",
        5, "backends.catalog.discover.environment", "variable",
    ),
    "health without a path": (
        "url: http://127.0.0.1:8101", "instances: [http://h]\n    health: {every: 500}",
        6, "backends.catalog.health.path", "missing",
    ),
    "health too often": (
        "url: http://127.0.0.1:8101", "instances: [http://h]\n    health: {path: /, every: 5}",
        6, "backends.catalog.health.every", "50",
    ),
    "an aggregate with a backend": (
        "    sticky: user", "    aggregate: {parts: {a: {path: /x}}}",
        9, "groups.catalog.backend", "leave backend out",
    ),
    "an aggregate below a path": (
        "    sticky: user", "    aggregate: {parts: {a: {path: /x}}}",
        12, "groups.catalog.paths.1", "has one path",
    ),
    "an aggregate of itself": (
        "    sticky: user", "    aggregate: {parts: {a: {path: /api/products?x=1}}}",
        15, "groups.catalog.aggregate.parts.a.path", "itself",
    ),
    "an aggregate of nothing": (
        "    sticky: user", "    aggregate: {parts: {}}", 15, "groups.catalog.aggregate.parts", "at least 1",
    ),
    "a part without a slash": (
        "    sticky: user", "    aggregate: {parts: {a: {path: x}}}",
        15, "groups.catalog.aggregate.parts.a.path", "begins with /",
    ),
    "a part that shadows the errors": (
        "    sticky: user", "    aggregate: {parts: {_errors: {path: /x}}}",
        15, "groups.catalog.aggregate.parts._errors.[key]", "letter",
    ),
    "instance that is no URL": (
        "url: http://127.0.0.1:8101", "instances: [http://h, h:80]", 5, "backends.catalog.instances.1", "http://",
    ),
    "backend of another scheme": ("http://127.0.0.1:8101", "ftp://x:1", 5, "backends.catalog.url", "https://"),
    "backend without a host": ("http://127.0.0.1:8101", "'http://:80'", 5, "backends.catalog.url", "host"),
    "backend with a path": (
        "http://127.0.0.1:8101", "http://x/api",
        5, "backends.catalog.url", "host and port",
    ),
    "backend with a bad port": (
        "http://127.0.0.1:8101", "http://x:99999",
        5, "backends.catalog.url", "not a URL",
    ),
    "timeout of zero": (
        "    sticky", "    timeouts: {read: 0}\n    sticky",
        15, "groups.catalog.timeouts.read", "greater than"
    ),
    "breaker that hides failures": (
        "    url: http", "    breaker: {consecutive: 2}\n    url: http",
        5, "backends.catalog.breaker.consecutive", "5"
    ),
    "breaker with turned pauses": (
        "    url: http", "    breaker: {pause: 500, longest_pause: 100}\n    url: http", 5,
        "backends.catalog.breaker", "longest_pause",
    ),
    "override with a bad name": (
        "    sticky", "    overrides: {header: 'a b'}\n    sticky",
        15, "groups.catalog.overrides.header", "legal"
    ),
    "trusted network with host bits": (
        "version: 1", "version: 1\ntrusted_proxies: [10.0.0.1/8]", 2, "trusted_proxies.0", "CIDR"
    ),
    "duplicate key": ("default: monolith", "default: monolith\ndefault: monolith", 7, "", "duplicate key"),
    "not YAML": ("default: monolith", "default: [", 8, "", "not valid YAML"),
    "not a mapping": (GOOD, "- 1\n", 1, "", "no mapping"),
    "empty": (GOOD, "", 1, "", "no mapping"),
    "no backends": (
        GOOD, "version: 1\nbackends: {}\ndefault: x\n", 2, "backends", "at least 1"
    ),
    "bad group name": (
        "  catalog:\n    backend", "  9 lives:\n    backend",
        8, "groups.9 lives.[key]", "a name is",
    ),
}  # fmt: skip


def faults_of(text: str) -> list[tuple[int, str, str]]:
    """Line, field, and message with remedy of every fault."""
    with pytest.raises(InvalidFileError) as caught:
        parse_routes(text.encode(), "routes.yaml")
    for problem in caught.value.problems:
        assert str(problem).startswith("routes.yaml:")
    return [(p.line, p.field, f"{p.message} ({p.remedy})") for p in caught.value.problems]


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_named_by_line_and_field(name: str) -> None:
    old, new, line, field, words = FAULTS[name]
    assert old in GOOD
    found = faults_of(GOOD.replace(old, new, 1))
    assert (line, field) in [(at, where) for at, where, _ in found]
    assert any(words in message for at, _, message in found if at == line)


def test_all_faults_are_named_at_once_in_the_files_order() -> None:
    text = (
        GOOD.replace("percent: 25", "percent: 101")
        .replace("owner: monolith", "owner: x")
        .replace("default: monolith", "default: y")
    )
    fields = [field for _, field, _ in faults_of(text)]
    assert fields == ["default", "groups.catalog.percent", "groups.catalog.owner"]


def test_two_groups_may_not_share_a_path_but_may_nest() -> None:
    second = "  other:\n    backend: catalog\n    percent: 1\n    paths: [{path}]\n"
    found = faults_of(GOOD + second.format(path="/api/products/*"))
    assert [(line, field) for line, field, _ in found] == [(20, "groups.other.paths.0")]
    assert "group 'catalog'" in found[0][2]
    routes = parse_routes((GOOD + second.format(path="/api/products/special/*")).encode(), "routes.yaml")
    assert group_at(routes, "/api/products/special/1") == "other"
    assert group_at(routes, "/api/products/1") == "catalog"


def test_good_file_is_understood() -> None:
    routes = parse_routes(GOOD.encode(), "routes.yaml")
    group = routes.groups["catalog"]
    assert (group.percent, group.threshold) == (Decimal(25), 2500)
    assert (group.owner, group.backend, group.fallback) == ("monolith", "catalog", True)
    assert group.sticky.kind is StickyKind.USER
    assert routes.backends["catalog"].url == "http://127.0.0.1:8101"
    assert routes.version == version_of(GOOD.encode())
    assert Routes.from_wire(routes.as_wire()) == routes


@pytest.mark.parametrize(
    ("percent", "threshold"), [("0.01", 1), ("12.5", 1250), ("33.33", 3333), ("1e1", 1000)]
)
def test_percent_has_two_decimals(percent: str, threshold: int) -> None:
    routes = parse_routes(GOOD.replace("percent: 25", f"percent: {percent}").encode(), "routes.yaml")
    assert routes.groups["catalog"].threshold == threshold


def test_timeouts_of_the_group_win_over_the_backends() -> None:
    text = GOOD.replace("    sticky", "    timeouts: {read: 700}\n    sticky").replace(
        "    url: http", "    timeouts: {connect: 200, read: 900, total: 5000}\n    url: http"
    )
    routes = parse_routes(text.encode(), "routes.yaml")
    timeouts = routes.groups["catalog"].timeouts
    assert (timeouts.connect, timeouts.read, timeouts.total) == (0.2, 0.7, 5.0)
    assert routes.backends["catalog"].timeouts.read == 0.9


def group_at(routes: Routes, path: str) -> str | None:
    """The name of the group that owns `path`."""
    group = routes.lookup(path.encode())
    return group.name if group else None


def test_lookup_compares_raw_bytes_and_the_longest_wins() -> None:
    routes = parse_routes(GOOD.encode(), "routes.yaml")
    for path in ("/api/products", "/api/products/", "/api/products/1/reviews", "/api/products/../cart"):
        assert group_at(routes, path) == "catalog"
    for path in (
        "/",
        "/api",
        "/api/product",
        "/api/productsx",
        "/API/products",
        "/api/%70roducts",
        "//api/products",
    ):
        assert group_at(routes, path) is None


def test_the_shops_own_file_is_legal_and_moves_nobody() -> None:
    path = Path(__file__).parents[2] / "routes.yaml"
    routes = load_routes(path)
    assert routes.groups["catalog"].paths == (
        "/api/products",
        "/api/products/*",
        "/api/categories",
        "/api/categories/*",
    )


def test_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match="cannot be read"):
        load_routes(tmp_path / "nowhere.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"version: 1\n\xff\xfe")
    with pytest.raises(InvalidFileError, match=r"binary.yaml:2: is not UTF-8"):
        load_routes(tmp_path / "binary.yaml")


@pytest.mark.parametrize("host", ["a..b", "b\u00fccher.test", "a b", "a%20b"])
def test_host_that_cannot_be_looked_up_is_refused(host: str) -> None:
    text = GOOD.replace("127.0.0.1:8101", host)
    with pytest.raises(InvalidFileError, match="the URL's host is a name of letters"):
        parse_routes(text.encode(), "f")


@pytest.mark.parametrize(
    "host", ["catalog", "catalog.shop.svc", "a_b", "[::1]:80", "[fe80::1%eth0]:80", "10.0.0.1"]
)
def test_hosts_that_can_be_looked_up(host: str) -> None:
    parse_routes(GOOD.replace("127.0.0.1:8101", host).encode(), "f")


@pytest.mark.parametrize(
    ("text", "said"),
    [("[" * 1200, "nested deeper"), (f"percent: {'1' * 5000}", "cannot be taken in")],
    ids=["deep", "huge"],
)
def test_what_the_reader_cannot_take_in_is_refused_too(text: str, said: str) -> None:
    with pytest.raises(InvalidFileError, match=said):
        parse_routes(text.encode(), "f")
