"""The filter that runs in Envoy says what our own code says: the same Lua, run by LuaJIT in this process."""

import ipaddress
from hashlib import blake2b
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lupa import luajit21

from strangler_proxy.buckets import digest_of
from strangler_proxy.decide import decide
from strangler_proxy.envoy.render import packed_context
from strangler_proxy.identity import CookieSigner, cookie_value, user_subject
from strangler_proxy.routes import parse_routes
from tests.proxy_lab import routes_text

_PATTERN = rb"""
function(digests, split, packed, from, count)
  local context, out = split.context(digests, packed), {}
  for i = from, from + count - 1 do
    local word = context.digest("anonymous:visitor-" .. i)
    out[#out + 1] = split.decide(context, "GET", word, "") == "canary" and "1" or "0"
  end
  return table.concat(out)
end
"""


class Lua:
    """Both programs, loaded."""

    def __init__(self) -> None:
        self.runtime = luajit21.LuaRuntime(encoding=None)
        here = files("strangler_proxy.envoy")
        self.digests = self.runtime.execute(here.joinpath("digests.lua").read_bytes())
        self.runtime.globals()[b"bit"] = self.runtime.eval(b"require('bit')")
        self.split = self.runtime.execute(here.joinpath("split.lua").read_bytes())

    def eval(self, code: bytes) -> Any:
        """A Lua expression's value."""
        return self.runtime.eval(code)


@pytest.fixture(scope="module")
def lua() -> Lua:
    return Lua()


LUA = Lua()


def test_a_million_ids_get_the_same_side_and_lowering_removes_the_newest(lua: Lua) -> None:
    batch = lua.eval(_PATTERN)
    count, sides = 1_000_000, {}
    for percent in ("25", "10.01"):
        routes = parse_routes(routes_text(1, 2, percent=percent), "routes.yaml")
        sides[percent] = batch(
            lua.digests, lua.split, packed_context(routes, routes.groups["catalog"]).encode(), 0, count
        )
    key = b"catalog"
    expected = {percent: bytearray(count) for percent in sides}
    for number in range(count):
        digest = blake2b(
            b"anonymous:visitor-%d" % number, digest_size=8, key=key, person=b"strangler"
        ).digest()
        bucket = int.from_bytes(digest, "big") % 10_000
        expected["25"][number] = 48 + (bucket < 2500)
        expected["10.01"][number] = 48 + (bucket < 1001)
    for percent, found in sides.items():
        assert found == bytes(expected[percent])
        assert abs(found.count(b"1") / count - float(percent) / 100) < 0.002
    stayed = int(sides["10.01"], 2)  # who is in the smaller canary is in the larger one
    assert stayed & ~int(sides["25"], 2) == 0


@given(st.binary(min_size=1, max_size=400), st.text("abcdefgh_-", min_size=1, max_size=63))
def test_digest_is_that_of_python(key: bytes, group: str) -> None:
    draw = LUA.eval(b"function(d, group, key) return d.hex(d.blake2b_64(group, 'strangler')(key)) end")
    assert int(draw(LUA.digests, group.encode(), key), 16) == digest_of(group, key)


@given(
    st.binary(min_size=16, max_size=100),
    st.binary(min_size=1, max_size=150),
    st.sampled_from([b"strangler_user", b"strangler_id"]),
)
def test_signatures_are_those_of_python(secret: bytes, value: bytes, purpose: bytes) -> None:
    signer, ours = LUA.split[b"signer"](LUA.digests, secret), CookieSigner(secret)
    signed = ours.sign(purpose, value)
    assert signer[b"sign"](purpose, value) == signed
    assert signer[b"verify"](purpose, signed) == value
    assert signer[b"verify"](purpose, signed[:-1] + bytes([signed[-1] ^ 1])) == b""
    assert signer[b"verify"](b"strangler_wrote", signed) == b""


_PIECES = [*'sidx=;, \t"', "sid", "sid=", "; sid=abc", "xsid=1"]
_COOKIES = st.lists(st.sampled_from(_PIECES), max_size=20).map("".join)


@given(_COOKIES)
def test_cookies_are_found_as_by_python(cookies: str) -> None:
    raw = cookies.encode()
    assert LUA.split[b"cookie_value"](raw, b"sid") == cookie_value(raw, b"sid")


@given(st.binary(max_size=140))
def test_subjects_are_named_as_by_python(said: bytes) -> None:
    assert LUA.split[b"user_subject"](said) == user_subject(said)


@pytest.mark.parametrize("owner", ["monolith", "catalog"])
@pytest.mark.parametrize("override", ["", "canary", "control", "catalog", "monolith", "nobody"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "DELETE", "PROPFIND"])
def test_decisions_are_those_of_python(lua: Lua, owner: str, override: str, method: str) -> None:
    routes = parse_routes(
        routes_text(1, 2, percent=50, owner=owner, group="overrides: {header: X-Side}"), "routes.yaml"
    )
    group = routes.groups["catalog"]
    run = lua.eval(
        b"function(d, s, packed, key, method, override) local c = s.context(d, packed) "
        b"return s.decide(c, method, c.digest(key), override) end"
    )
    for name in (b"user:1", b"user:2", b"user:3", b"user:4"):
        ours = decide(
            group=group,
            default="monolith",
            safe=method in ("GET", "HEAD", "OPTIONS"),
            digest=digest_of("catalog", name),
            override=override,
        )
        kind = run(
            lua.digests,
            lua.split,
            packed_context(routes, group).encode(),
            name,
            method.encode(),
            override.encode(),
        ).decode()
        owners = "control" if owner == "monolith" else "canary"
        arm = owners if kind == "owner" else kind.removeprefix("tester-")
        assert (arm, not kind.startswith("tester")) == (ours.arm.value, ours.evidence)


@given(st.ip_addresses(), st.ip_addresses(), st.integers(0, 128))
def test_networks_hold_what_they_hold_in_python(address: Any, other: Any, length: int) -> None:
    length = min(length, other.max_prefixlen)
    network = ipaddress.ip_network((other, length), strict=False)
    run = LUA.eval(
        b"function(s, text) local found = s.address_bytes(text) return found and string.char(unpack(found)) end"
    )
    expected = address.packed
    mapped = getattr(address, "ipv4_mapped", None)
    assert run(LUA.split, str(address).encode()) == (mapped.packed if mapped else expected)
    inside = LUA.eval(b"function(s, text, net) return s.inside(s.address_bytes(text), s.network(net)) end")
    if mapped is None and getattr(network.network_address, "ipv4_mapped", None) is None:
        assert inside(LUA.split, str(address).encode(), str(network).encode()) == (address in network)
        assert inside(LUA.split, str(network[0]).encode(), str(network).encode())
