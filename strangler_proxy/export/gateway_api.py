"""Gateway and HTTPRoutes of the Kubernetes Gateway API, v1: the routes as far as it can say them. Pure.

One HTTPRoute for each group (more when its rules are more than one holds) and one for the default backend. Of all
routes of a Gateway the rule with the most specific path wins, then one that names a method, then one that names more
headers (https://gateway-api.sigs.k8s.io/reference/spec/#httprouterule): so, for each path, safe methods are split by
weight, a tester's header takes precedence, and everything else, unsafe methods among it, goes to the owner.

A weight is a draw for each request. Nothing here keeps a user on one side, and the file says so.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from chassis.problems import Problem
from chassis.yamlfile import Places
from strangler_proxy.export import gateway_filters as filters
from strangler_proxy.export.document import document
from strangler_proxy.export.judge import Export, left_out
from strangler_proxy.known_keys import beyond, patterns
from strangler_proxy.table import BUCKETS, Backend, Group, Routes

JSON = dict[str, Any]

_VERSION = "gateway.networking.k8s.io/v1"
_SAFE = ("GET", "HEAD", "OPTIONS")
_SHADOWED = ("GET", "HEAD")
_MATCHES, _RULES, _MATCHES_IN_ALL = 64, 16, 128  # of a rule, of an HTTPRoute; the limits of its schema
_PATH = re.compile(r"(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2}){1,1024}")  # its schema's, too
_AMBIGUOUS = re.compile(r"//|/\.\.?(/|$)|%2[fF]")
_SERVICE = re.compile(r"([a-z]([-a-z0-9]{0,61}[a-z0-9])?)(?:\.([a-z0-9][-a-z0-9]*)\.svc(?:\..*)?)?")

_KNOWN = patterns("""
version default
backends backends.* backends.*.url backends.*.instances backends.*.instances.* backends.*.discover
backends.*.discover.file backends.*.discover.dns backends.*.discover.environment backends.*.discover.every
backends.*.timeouts backends.*.timeouts.total
groups groups.* groups.*.backend groups.*.paths groups.*.paths.* groups.*.percent groups.*.owner
groups.*.timeouts groups.*.timeouts.total
groups.*.overrides groups.*.overrides.header overrides overrides.header
groups.*.shadow groups.*.shadow.percent
groups.*.transform groups.*.transform.path groups.*.transform.path.exact groups.*.transform.path.exact.*
groups.*.transform.path.prefix groups.*.transform.path.prefix.*
groups.*.transform.request groups.*.transform.request.* groups.*.transform.request.*.*
groups.*.transform.response groups.*.transform.response.* groups.*.transform.response.*.*
groups.*.transform.control groups.*.transform.control.request groups.*.transform.control.request.*
groups.*.transform.control.request.*.* groups.*.transform.control.response groups.*.transform.control.response.*
groups.*.transform.control.response.*.* groups.*.transform.canary groups.*.transform.canary.request
groups.*.transform.canary.request.* groups.*.transform.canary.request.*.* groups.*.transform.canary.response
groups.*.transform.canary.response.* groups.*.transform.canary.response.*.*
tls tls.certificate tls.key
""")
_STALE = "who has just written may read an older state from the other side"
_LIMITS = "set limits in the implementation, or at the Services"
_BEARABLE = {
    "sticky": "a weight is a draw for each request",
    "fallback": "a failed request is the client's",
    "position": _STALE,
    "read_your_writes": _STALE,
    "limits": _LIMITS,
    "breaker": "nothing keeps requests from a Service that fails them",
    "health": "readiness probes of the pods decide who gets requests",
    "connect": "the implementation has its own time-out",
    "read": "the implementation has its own time-out; timeouts.total is kept",
    "cache": "every request reaches a Service",
    "cookie": "testers are known by the header alone",
    "issuers": "no group that is left asks for a token",
    "expose": "answers do not say who gave them",
    "listen": _LIMITS,
    "via": "the implementation says what it says",
    "trusted_proxies": "tell the implementation whose X-Forwarded-* headers to believe",
    **dict.fromkeys(
        ("timeout", "patience", "max_body", "concurrency", "examples", "rules"),
        "a mirror's answers are thrown away, and nothing is compared",
    ),
}
_REMEDIES = {
    "auth": "check tokens and sessions in the backends",
    "rate_limit": "limit requests in the backends or by the implementation's own policy",
    "aggregate": "answer this path from a Service",
    "regex": "write it as exact or prefix",
    "path": "write one path for both sides",
    "tls": "write a BackendTLSPolicy by hand, and http:// here",
}
_RANDOM_NOTE = (
    "NOT STICKY: weights draw a side anew for each request, so between 0 and 100 percent one user meets both sides. "
    "Where that is not bearable, export the file for Envoy, or run the proxy."
)
_FIXED_NOTE = (
    "Nobody follows the routes file and nobody counts outcomes: no gate, no automatic roll-back. Write the file "
    "again after an edit."
)


@dataclass(frozen=True, slots=True)
class Service:
    """Where a backend is in the cluster; `namespace` empty: the Gateway's own."""

    name: str
    port: int
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the routes file does not know. `services`: by backend, where they are not called as it is; `port` of the
    Gateway, None for 80, or 443 with TLS."""

    namespace: str = "default"
    gateway: str = "strangler"
    gateway_class: str = "eg"
    port: int | None = None
    services: Mapping[str, Service] | None = None


@dataclass(frozen=True, slots=True)
class _Path:
    """A path as an HTTPRoute matches it, and what it is rewritten by."""

    kind: str  # Exact or PathPrefix
    value: str
    rewrite: JSON | None = None


def gateway_file(routes: Routes, places: Places, cluster: Cluster) -> Export:
    """The manifests. Raises InvalidFileError with what the Gateway API cannot say and must not leave out."""
    services = {
        name: _service(backend, (cluster.services or {}).get(name))
        for name, backend in routes.backends.items()
    }
    notes = (
        _RANDOM_NOTE,
        *_needs(routes, cluster, services),
        _FIXED_NOTE,
        *_shadow_notes(routes),
        *left_out(_faults(routes, places, services), bearable=_BEARABLE, routes=routes),
    )
    claimed = _claimed(routes)
    names = _Names()
    manifests = [_gateway(routes, cluster)]
    for group in routes.groups.values():
        rules = list(_group_rules(routes, group, claimed[group.name], services))
        manifests += _http_routes(names, group.name, rules, cluster)
    rest = list(_default_rules(routes, claimed[""], services))
    manifests += _http_routes(names, "default", rest, cluster)
    title = f"Kubernetes Gateway API, from {places.file} (version {routes.version}) by `strangler export gateway-api`."
    return Export(document(title, notes, manifests), notes)


# What cannot be said


def _faults(routes: Routes, places: Places, services: Mapping[str, Service]) -> Iterator[Problem]:
    for beyond_it in beyond(places, _KNOWN):
        key = str(beyond_it[-1])
        remedy = _REMEDIES.get(key, "export the file for Envoy")
        yield places.problem(beyond_it, f"the Gateway API has no {key!r}", remedy)
    for name, group in routes.groups.items():
        for position, pattern in enumerate(group.paths):
            path = pattern.removesuffix("*")
            if not _PATH.fullmatch(path) or _AMBIGUOUS.search(path):
                at = ("groups", name, "paths", position)
                yield places.problem(at, "an HTTPRoute cannot match this path", "export the file for Envoy")
        for of in filters.beyond_limits(group):
            remedy = f"do it in the backends: {filters.LIMIT} headers are the most"
            yield places.problem(("groups", name, "transform"), f"a {of} would have too many", remedy)
        for inner in _unsayable(group):
            message = f"{inner} is only a part of what one of `paths` matches"
            remedy = "name it in `paths` too, or rewrite in the backends"
            yield places.problem(("groups", name, "transform", "path"), message, remedy)
    for name, service in services.items():
        if not service.port:
            remedy = f"say where it is: --service {name}=NAME:PORT"
            yield places.problem(("backends", name), "no port is known", remedy)


def _needs(routes: Routes, cluster: Cluster, services: Mapping[str, Service]) -> Iterator[str]:
    named = ", ".join(
        f"{service.namespace or cluster.namespace}/{service.name}:{service.port}"
        for service in services.values()
    )
    yield f"Services, which are not part of this file: {named}. Other names: --service BACKEND=[NAMESPACE/]NAME:PORT."
    foreign = sorted({s.namespace for s in services.values() if s.namespace not in ("", cluster.namespace)})
    if foreign:
        yield (
            f"A ReferenceGrant in {', '.join(foreign)} that lets HTTPRoutes of {cluster.namespace} name its Services."
        )
    if routes.tls is not None:
        yield f"The certificate as Secret {cluster.namespace}/{cluster.gateway}-tls (type kubernetes.io/tls)."


def _shadow_notes(routes: Routes) -> Iterator[str]:
    if any(group.shadow is not None for group in routes.groups.values()):
        yield (
            "Mirrored requests do not bear X-Strangler-Shadow, so a Service cannot tell them and answers them with "
            "whatever rights it has: mirror only to one whose GETs write nothing. Conditional requests and ranges are "
            "mirrored too."
        )


# Paths


def _claimed(routes: Routes) -> dict[str, list[_Path]]:
    """The paths of each group, under its name; under the empty name, those of the default backend.

    `/a/*` is `/a/` and below, while a PathPrefix of `/a/` matches `/a`, too: that path, where nobody claims it, gets an
    exact match that sends it where it belongs.
    """
    found: dict[str, list[_Path]] = {name: [] for name in ("", *routes.groups)}
    patterns_ = {pattern for group in routes.groups.values() for pattern in group.paths}
    for name, group in routes.groups.items():
        for pattern in group.paths:
            found[name].append(_path(group, pattern))
            bare = pattern.removesuffix("/*")
            if bare in (pattern, "") or bare in patterns_:
                continue
            owner = routes.lookup(bare.encode())
            found["" if owner is None else owner.name].append(
                _Path("Exact", bare) if owner is None else _path(owner, bare)
            )
    if "/*" not in patterns_:
        found[""].append(_Path("PathPrefix", "/"))
    return found


def _path(group: Group, pattern: str) -> _Path:
    if pattern.endswith("/*"):
        value = pattern[:-1]
        return _Path("PathPrefix", value, filters.prefix_rewrite(group.transforms, value))
    return _Path("Exact", pattern, filters.full_rewrite(group.transforms, pattern))


def _unsayable(group: Group) -> Iterator[str]:
    """Rewrites of a part of what a `/*` pattern claims."""
    changes = group.transforms.both.path if group.transforms is not None else None
    if changes is None:
        return
    wholes = [pattern[:-1] for pattern in group.paths if pattern.endswith("/*")]
    for raw in (*(path for path, _ in changes.exact), *(prefix for prefix, _ in changes.prefixes)):
        path = raw.decode()
        if path not in group.paths and any(path.startswith(whole) and path != whole for whole in wholes):
            yield path


# Rules


def _group_rules(
    routes: Routes, group: Group, paths: Sequence[_Path], services: Mapping[str, Service]
) -> Iterator[JSON]:
    default = routes.backends[routes.default]
    own = routes.backends[group.backend]
    moves = group.backend != routes.default
    control = _ref(routes, group, default, services, weight=BUCKETS - group.threshold if moves else 1)
    canary = _ref(routes, group, own, services, weight=group.threshold)
    owner = canary if group.owner == group.backend and moves else control
    total = default.timeouts.total
    both = [total, group.timeouts.total]
    for matched, rewrite in _together(paths):
        common = filters.of_both(group.transforms, rewrite)
        if moves:
            for methods in (_SHADOWED, _SAFE[2:]) if group.shadow is not None else (_SAFE,):
                yield from _rules(
                    _matches(matched, methods), [control, canary], common, _longest(both),
                    mirror=_mirror(group) if methods == _SHADOWED else None,
                )  # fmt: skip
            if group.overrides.header:
                for ref, values, limit in (
                    (control, ("control", routes.default), total),
                    (canary, ("canary", group.backend), group.timeouts.total),
                ):
                    matches = _matches(matched, _SAFE, header=group.overrides.header, values=values)
                    yield from _rules(matches, [_alone(ref)], common, limit)
        limit = group.timeouts.total if owner is canary else total
        yield from _rules(_matches(matched), [_alone(owner)], common, limit)


def _default_rules(routes: Routes, paths: Sequence[_Path], services: Mapping[str, Service]) -> Iterator[JSON]:
    default = routes.backends[routes.default]
    ref = _backend_ref(services[default.name])
    if paths:
        yield from _rules(_matches(paths), [ref], filters.of_both(None, None), default.timeouts.total)


def _together(paths: Sequence[_Path]) -> Iterator[tuple[list[_Path], JSON | None]]:
    """Paths that can share rules: those that are not rewritten. A rewritten prefix must be its rule's only match."""
    plain = [path for path in paths if path.rewrite is None]
    if plain:
        yield plain, None
    for path in paths:
        if path.rewrite is not None:
            yield [path], path.rewrite


def _matches(
    paths: Sequence[_Path], methods: Sequence[str] = (), *, header: str = "", values: Sequence[str] = ()
) -> list[JSON]:
    found = []
    for path in paths:
        for method in methods or ("",):
            for value in dict.fromkeys(values) or ("",):
                match: JSON = {"path": {"type": path.kind, "value": path.value}}
                if method:
                    match["method"] = method
                if header:
                    match["headers"] = [{"type": "Exact", "name": header, "value": value}]
                found.append(match)
    return found


def _rules(
    matches: Sequence[JSON],
    refs: Sequence[JSON],
    common: Sequence[JSON],
    total: float | None,
    *,
    mirror: Decimal | None = None,
) -> Iterator[JSON]:
    above, targets = list(common), list(refs)
    if mirror is not None:
        above, targets = filters.mirrored(above, targets, mirror)
    rewrites_prefix = any(
        item.get("urlRewrite", {}).get("path", {}).get("type") == "ReplacePrefixMatch" for item in above
    )
    step = 1 if rewrites_prefix else _MATCHES
    for start in range(0, len(matches), step):
        yield {
            "matches": list(matches[start : start + step]),
            "filters": above,
            "timeouts": {"request": duration(total)},
            "backendRefs": targets,
        }


def _mirror(group: Group) -> Decimal | None:
    return None if group.shadow is None else Decimal(str(group.shadow.percent))


def _longest(totals: Sequence[float | None]) -> float | None:
    known = [total for total in totals if total is not None]
    return max(known) if len(known) == len(totals) else None


def duration(seconds: float | None) -> str:
    """A duration of GEP-2257; None, no limit, is `0s`."""
    milliseconds = 0 if seconds is None else round(seconds * 1000)
    whole, rest = divmod(milliseconds, 1000)
    return f"{whole}s{rest}ms" if rest and whole else f"{rest}ms" if rest else f"{whole}s"


# Backends


def _service(backend: Backend, said: Service | None) -> Service:
    """Its Service: what was said, what a name inside a cluster says, else one that is called as the backend is."""
    if said is not None:
        return said
    found = _SERVICE.fullmatch(backend.host)
    if found and found[1] != "localhost":
        return Service(found[1], backend.port, found[3] or "")
    return Service(object_name(backend.name), backend.port)


def _backend_ref(service: Service) -> JSON:
    ref: JSON = {"group": "", "kind": "Service", "name": service.name, "port": service.port}
    if service.namespace:
        ref["namespace"] = service.namespace
    return ref


def _ref(
    routes: Routes, group: Group, backend: Backend, services: Mapping[str, Service], *, weight: int
) -> JSON:
    ref = {**_backend_ref(services[backend.name]), "weight": weight}
    own = filters.of_side(group.transforms, control=backend.name == routes.default)
    return {**ref, "filters": own} if own else ref


def _alone(ref: JSON) -> JSON:
    return {**ref, "weight": 1}


# Manifests


def object_name(name: str) -> str:
    """A name as Kubernetes lets objects have them (RFC 1123 label)."""
    return name.lower().replace("_", "-").strip("-")[:50].strip("-")


class _Names:
    """Names that no two objects share."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, wanted: str) -> str:
        number, name = 1, wanted
        while name in self._taken:
            number += 1
            name = f"{wanted}-{number}"
        self._taken.add(name)
        return name


def _gateway(routes: Routes, cluster: Cluster) -> JSON:
    secure = routes.tls is not None
    listener: JSON = {
        "name": "https" if secure else "http",
        "port": cluster.port or (443 if secure else 80),
        "protocol": "HTTPS" if secure else "HTTP",
        "allowedRoutes": {"namespaces": {"from": "Same"}},
    }
    if secure:
        listener["tls"] = {
            "mode": "Terminate",
            "certificateRefs": [{"group": "", "kind": "Secret", "name": f"{cluster.gateway}-tls"}],
        }
    return {
        "apiVersion": _VERSION,
        "kind": "Gateway",
        "metadata": {"name": cluster.gateway, "namespace": cluster.namespace},
        "spec": {"gatewayClassName": cluster.gateway_class, "listeners": [listener]},
    }


def _http_routes(names: _Names, group: str, rules: Sequence[JSON], cluster: Cluster) -> Iterator[JSON]:
    for part in _parts(rules):
        name = names.take(f"{cluster.gateway}-{object_name(group)}")
        yield {
            "apiVersion": _VERSION,
            "kind": "HTTPRoute",
            "metadata": {"name": name, "namespace": cluster.namespace},
            "spec": {"parentRefs": [{"name": cluster.gateway}], "rules": part},
        }


def _parts(rules: Sequence[JSON]) -> Iterator[list[JSON]]:
    part: list[JSON] = []
    for rule in rules:
        count = sum(len(other["matches"]) for other in part) + len(rule["matches"])
        if part and (len(part) == _RULES or count > _MATCHES_IN_ALL):
            yield part
            part = []
        part.append(rule)
    if part:
        yield part
