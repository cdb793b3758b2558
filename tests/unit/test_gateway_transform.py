"""Changes of heads and paths, and what the routes file lets one change."""

import pytest

from chassis.problems import InvalidFileError
from strangler_proxy.gateway.transform import PathChanges, changes_of, retarget, rewriter
from strangler_proxy.gateway.transforming import compiled
from strangler_proxy.routes import parse_routes
from tests.proxy_lab import routes_text


def faults(group: str) -> list[str]:
    with pytest.raises(InvalidFileError) as raised:
        parse_routes(routes_text(1, 2, group=group), "routes.yaml")
    assert all(problem.line for problem in raised.value.problems)
    return [f"{problem.field}: {problem.message}" for problem in raised.value.problems]


def test_headers_are_removed_then_set_then_added() -> None:
    changes = changes_of(set_=[("X-Api", "2")], add=[("Accept", "b")], remove=["x-debug"])
    lines = [b"X-DEBUG: 1\r\n", b"x-api: 1\r\n", b"X-Api: 1\r\n", b"Accept: a\r\n", b"X-Apis: kept\r\n"]
    changes.apply(lines)
    assert lines == [b"Accept: a\r\n", b"X-Apis: kept\r\n", b"X-Api: 2\r\n", b"Accept: b\r\n"]


@pytest.mark.parametrize(
    ("path", "rewritten"),
    [
        (b"/a/b", b"/exact"),
        (b"/a", b"/z"),
        (b"/a/c", b"/z/c"),
        (b"/ab", b"/ab"),  # a prefix ends where a segment ends
        (b"/a/long/x", b"/longest/x"),
        (b"/p/12/pdf", b"/print/12"),
        (b"/p/x/pdf", b"/p/x/pdf"),
        (b"/p/12/pdf/more", b"/p/12/pdf/more"),  # the whole path or nothing
        (b"/p/%2e%2e/pdf", b"/p/%2e%2e/pdf"),  # nothing is decoded
    ],
)
def test_the_first_rewrite_that_fits_applies(path: bytes, rewritten: bytes) -> None:
    changes = PathChanges(
        exact=((b"/a/b", b"/exact"),),
        prefixes=((b"/a/long", b"/longest"), (b"/a", b"/z")),
        pattern=rb"/p/(\d+)/pdf",
        replacement=rb"/print/\1",
    )
    rewrite = rewriter(changes, pattern=compiled(changes.pattern, changes.replacement))
    assert rewrite(path) == rewritten
    assert retarget(path + b"?q=/a/b?", rewrite) == rewritten + b"?q=/a/b?"
    assert retarget(path + b"?", rewrite) == rewritten + b"?"


@pytest.mark.parametrize(
    "name",
    [
        "Content-Length", "Transfer-Encoding", "Connection", "TE", "Upgrade", "Host", "X-Request-ID",
        "X-Forwarded-For", "Forwarded", "X-Strangler-Subject", "x_strangler_subject", "Keep-Alive", "Expect",
    ],
)  # fmt: skip
def test_headers_that_frame_or_route_cannot_be_changed(name: str) -> None:
    for change in (f"set: {{{name}: x}}", f"add: {{{name}: x}}", f"remove: [{name}]"):
        (fault,) = faults(f"transform: {{request: {{{change}}}}}")
        assert "cannot be changed" in fault


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        ('request: {set: {X-A: "a\\r\\nX-B: b"}}', "visible ASCII"),
        ("path: {exact: {/a: b}}", "begins with /"),
        ("path: {prefix: {/a/: /b}}", "two segments become one"),
        ("path: {regex: {match: '(', to: /x}}", "not a regular expression"),
        ("path: {regex: {match: '/(a)', to: '/\\2'}}", "has 1 groups"),
        ("path: {regex: {match: '((a{100}){100}){100}', to: /x}}", "not a regular expression"),
        ("path: {}", "needs exact, prefix or regex"),
        ("sideways: {}", "sideways"),
    ],
)
def test_a_faulty_transform_is_refused_with_its_place(transform: str, words: str) -> None:
    assert any(words in fault for fault in faults(f"transform: {{{transform}}}"))


def test_a_group_without_a_backend_moves_nothing() -> None:
    text = b"""\
version: 1
backends: {monolith: {url: "http://127.0.0.1:1"}}
default: monolith
groups:
  all: {paths: ["/*"], rate_limit: [{by: ip, requests: 1}]}
"""
    group = parse_routes(text, "routes.yaml").groups["all"]
    assert (group.backend, group.percent, group.owner, group.fallback) == ("monolith", 0, "monolith", False)
    for key in ("percent: 5", "owner: monolith", "fallback: true", "overrides: {header: X-Side}"):
        with pytest.raises(InvalidFileError, match="says nothing without a backend"):
            parse_routes(text.replace(b"paths:", f"{key}, paths:".encode()), "routes.yaml")


def test_a_prefix_that_is_cut_off_leaves_one_slash() -> None:
    rewrite = rewriter(PathChanges(prefixes=((b"/api", b"/"), (b"/b", b"/c/"))))
    assert [rewrite(path) for path in (b"/api", b"/api/", b"/api/evil.test", b"/b/x")] == [
        b"/", b"/", b"/evil.test", b"/c/x",
    ]  # fmt: skip
