"""What a routes file may ask of the Envoy engine. Pure, and the only place that says so.

Whatever is written in the file must be known here as something Envoy does; anything else is refused with its line,
also what other parts of the proxy learn in future. Refused, never ignored: a routes file means the same under
either engine, or it does not run.
"""

from collections.abc import Iterator, Mapping

from chassis.problems import Problem
from chassis.yamlfile import Places
from strangler_proxy.envoy.render import hosts_of
from strangler_proxy.known_keys import KeyPath, beyond, patterns
from strangler_proxy.table import Routes, StickyKind

_DONE = patterns("""
version
default
expose
backends
backends.*
backends.*.url
backends.*.instances
backends.*.instances.*
backends.*.timeouts
backends.*.timeouts.connect
backends.*.timeouts.read
backends.*.timeouts.total
backends.*.limits
backends.*.limits.connections
backends.*.limits.waiting
backends.*.limits.keep_alive
backends.*.breaker
backends.*.breaker.consecutive
backends.*.breaker.pause
backends.*.breaker.longest_pause
groups
groups.*
groups.*.backend
groups.*.paths
groups.*.paths.*
groups.*.percent
groups.*.owner
groups.*.sticky
groups.*.fallback
groups.*.expose
groups.*.shadow
groups.*.shadow.percent
groups.*.shadow.timeout
groups.*.shadow.concurrency
groups.*.timeouts
groups.*.timeouts.connect
groups.*.timeouts.read
groups.*.timeouts.total
groups.*.overrides
groups.*.overrides.header
groups.*.overrides.cookie
overrides
overrides.header
overrides.cookie
trusted_proxies
trusted_proxies.*
listen
listen.header_timeout
listen.body_timeout
listen.idle_timeout
listen.tunnel_timeout
listen.upgrades
listen.upgrades.*
tls
tls.certificate
tls.key
backends.*.tls
backends.*.tls.ca
backends.*.tls.certificate
backends.*.tls.key
backends.*.tls.server_name
via
via.name
via.requests
via.responses
""")

_PYTHON = "run the Python engine (--engine python)"
# By the last key of a path: why not, and what to do instead of changing the engine.
_REMEDIES: Mapping[str, str] = {
    "in_flight": "what finds no room is not answered by the fallback there; use connections and waiting",
    "window": "Envoy ejects by failures in a row; use consecutive",
    "rate": "Envoy ejects by failures in a row; use consecutive",
    "probes": "Envoy lets every request probe; leave it out",
    "position": "reads would not wait for their client's writes; leave position and read_your_writes out",
    "read_your_writes": "reads would not wait for their client's writes; leave it out or say false",
    "auth": "check tokens and sessions in front of it, or in the backends",
    "rate_limit": "limit requests in front of it",
    "cache": "cache in front of it",
    "aggregate": "answer this path from a backend",
    "transform": "rewrite in front of it, or in the backends",
    "issuers": "check tokens in front of it, or in the backends",
    # A mirror's answers are thrown away: there are no comparisons, and a gate that asks for them holds.
    **dict.fromkeys(
        ("patience", "max_body", "examples", "rules"), "an Envoy mirror compares nothing; leave it out"
    ),
    "discover": "list the addresses as instances",
    "health": "Envoy ejects instances that fail requests; leave it out",
}


def refused_keys(routes: Routes, places: Places) -> list[KeyPath]:
    """The keys of a legal routes file that this engine has not, outermost first: without them it may run, but for
    `capability_faults` in values."""
    return [path for path, _ in _refused(routes, places)]


def capability_faults(routes: Routes, places: Places, *, authorities: str) -> list[Problem]:
    """Everything in a legal routes file that this engine cannot do, each with its line; empty when it may run.

    `authorities`: the machine's own file of trusted authorities, empty when it has none.
    """
    return sorted(
        (*_keys(routes, places), *_values(routes, places, authorities)),
        key=lambda problem: (problem.line, problem.column),
    )


def _keys(routes: Routes, places: Places) -> Iterator[Problem]:
    for path, remedy in _refused(routes, places):
        yield places.problem(path, f"the Envoy engine has no {str(path[-1])!r}", remedy)


def _refused(routes: Routes, places: Places) -> Iterator[tuple[KeyPath, str]]:
    reading_freely = all(group.guarding is None for group in routes.groups.values())
    for path in beyond(places, _DONE):
        if "read_your_writes" in path and reading_freely:
            continue  # it says that there is none
        key = str(path[-1])
        yield path, f"{_REMEDIES[key]}, or {_PYTHON}" if key in _REMEDIES else _PYTHON


def _values(routes: Routes, places: Places, authorities: str) -> Iterator[Problem]:
    for name, backend in routes.backends.items():
        if backend.tls is not None and not backend.tls.ca and not authorities:
            at: KeyPath = ("backends", name)
            remedy = "name the file of its certificate's authority (tls.ca), or install ca-certificates"
            yield places.problem(at, "this machine has no file of trusted authorities for Envoy", remedy)
        if backend.tls is not None and not backend.tls.server_name and len(hosts_of(backend)) > 1:
            at = ("backends", name, "instances")
            remedy = f"say which name their certificates bear (tls.server_name), or {_PYTHON}"
            yield places.problem(at, "the Envoy engine expects one name of all instances", remedy)
    for name, group in routes.groups.items():
        if group.sticky.kind is StickyKind.JWT:
            remedy = f"use user, session, header, cookie or ip, or {_PYTHON}"
            yield places.problem(
                ("groups", name, "sticky"), "the Envoy engine verifies no tokens for sticky: jwt", remedy
            )
        backend = routes.backends[group.backend]
        if group.timeouts.connect != backend.timeouts.connect:
            remedy = "set it for the backend (backends.NAME.timeouts.connect)"
            where: KeyPath = ("groups", name, "timeouts", "connect")
            yield places.problem(where, "the Envoy engine has one connect time-out for each backend", remedy)
