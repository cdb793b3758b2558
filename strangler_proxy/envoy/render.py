"""The routes as Envoy reads them. Pure: frozen `Routes` in, plain data (protobuf's JSON form) out.

Three kinds of resources, each a file that Envoy watches (`engine.py` writes them in the order that drops nothing):

* clusters: one for each backend, named by its content, so that a changed backend is a new cluster beside the old
  one and a switch of routes takes all or nothing; and for each pair of service and default one that holds both, the
  default behind the service (an aggregate cluster), from which a failed safe request is tried again; and for mirrors a
  cluster of their own, so that they take nobody's place and eject nobody;
* routes: each path several times, by kind of decision (`KINDS`), because what may follow a failure and what is
  counted differ. `split.lua` names the kind in `x-strangler-arm`. A route's name is all that the access log needs;
* the listener, in front.py.

Envoy v3 API, https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/api; previous priorities and aggregate clusters:
.../intro/arch_overview/upstream/aggregate_cluster.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from strangler_proxy.shadow_policy import Shadow
from strangler_proxy.table import UNROUTED, Backend, Group, Routes
from strangler_proxy.tls import BackendTls

JSON = dict[str, Any]

ROUTES_NAME = "split"
ARM_HEADER = "x-strangler-arm"
SIDE_HEADER = "x-strangler-side"
SHADOW_HEADER = "X-Strangler-Shadow"
FILTER_ANSWERED = "lua_response"  # Envoy's name for an answer that split.lua gave by itself
UNCLAIMED, TUNNEL_ENDING, SHADOW_ENDING = (
    "unclaimed",
    "-tunnel",
    "-shadow",
)  # of the kinds that split.lua names
DEFAULT_SIDE, SERVICE_SIDE = "default", "service"
LATE = 1.0  # seconds that a stream's own limit lies beyond what ends it in the ordinary way

TYPE = "type.googleapis.com/"
HTTP = f"{TYPE}envoy.extensions.filters.http."
TRANSPORT = f"{TYPE}envoy.extensions.transport_sockets.tls.v3."


@dataclass(frozen=True, slots=True)
class Place:
    """Where Envoy listens and how it runs: `address` and `port` of its front, `workers` threads. `authorities`: PEM
    file of the certificate authorities that backends are trusted by when the routes name none."""

    address: str
    port: int
    workers: int
    authorities: str = ""


def seconds(value: float) -> str:
    """A protobuf Duration as JSON."""
    return f"{value:.3f}s"


def lua_source(setting: str = "os.getenv") -> str:
    """The filter's program: both files, and the two functions that Envoy calls. `setting`: a Lua expression, the
    function that split.lua reads its settings with."""
    here = files("strangler_proxy.envoy")
    digests = here.joinpath("digests.lua").read_text(encoding="utf-8")
    split = here.joinpath("split.lua").read_text(encoding="utf-8")
    return (
        f"local digests = (function()\n{digests}\nend)()\n"
        f"local split = (function()\n{split}\nend)()\n"
        f"local filter = split.filter(digests, {setting})\n"
        "function envoy_on_request(handle) filter.request(handle) end\n"
        "function envoy_on_response(handle) filter.response(handle) end\n"
    )


# Clusters


def cluster_name(routes: Routes, backend: Backend, place: Place) -> str:
    """The backend's name and a hash of everything that its cluster is made of."""
    return f"{backend.name}.{version_of(_cluster(routes, backend, '', place))}"


def fallback_name(routes: Routes, backend: Backend, place: Place) -> str:
    """The cluster of a service with the default backend behind it."""
    default = routes.backends[routes.default]
    return f"{cluster_name(routes, backend, place)}+{cluster_name(routes, default, place)}"


def clusters(routes: Routes, place: Place) -> list[JSON]:
    """Every cluster that the routes refer to."""
    made = [
        _cluster(routes, backend, cluster_name(routes, backend, place), place)
        for backend in routes.backends.values()
    ]
    made += _mirrors(routes, place).values()
    used = {group.backend for group in routes.groups.values() if _falls_back(routes, group)}
    default = cluster_name(routes, routes.backends[routes.default], place)
    for name in sorted(used):
        backend = routes.backends[name]
        made.append(
            {
                "@type": f"{TYPE}envoy.config.cluster.v3.Cluster",
                "name": fallback_name(routes, backend, place),
                "connect_timeout": seconds(backend.timeouts.connect),
                "lb_policy": "CLUSTER_PROVIDED",
                "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
                # of this cluster the limit of retries counts, which is 3 unless told: every failure may be one
                "circuit_breakers": _limits(backend, place.workers),
                "cluster_type": {
                    "name": "envoy.clusters.aggregate",
                    "typed_config": {
                        "@type": f"{TYPE}envoy.extensions.clusters.aggregate.v3.ClusterConfig",
                        "clusters": [cluster_name(routes, backend, place), default],
                    },
                },
            }
        )
    return made


def _mirrors(routes: Routes, place: Place) -> dict[str, JSON]:
    """The clusters that mirrored requests go to, by name."""
    found = {}
    for group in routes.groups.values():
        if group.shadow is not None:
            for name in (group.backend, routes.default):
                cluster = _mirror_cluster(routes.backends[name], group.shadow, routes, place)
                found[cluster["name"]] = cluster
    return found


def _mirror_cluster(backend: Backend, shadow: Shadow, routes: Routes, place: Place) -> JSON:
    """The backend once more, for mirrors alone: bounded, and what fails there ejects nobody."""
    most = shadow.concurrency * place.workers
    limits = {"max_connections": most, "max_pending_requests": most, "max_requests": most, "max_retries": 0}
    cluster = _cluster(routes, backend, "", place)
    cluster.pop("outlier_detection", None)
    cluster["circuit_breakers"] = {"thresholds": [limits]}
    (options,) = cluster["typed_extension_protocol_options"].values()
    options["common_http_protocol_options"]["max_stream_duration"] = seconds(shadow.timeout)
    name = f"{backend.name}-mirror.{version_of(cluster)}"
    return {**cluster, "name": name, "load_assignment": {**cluster["load_assignment"], "cluster_name": name}}


def _falls_back(routes: Routes, group: Group) -> bool:
    return group.fallback and group.backend != routes.default


def version_of(value: Any) -> str:
    """A name for plain data, of its content."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def _addresses(backend: Backend) -> list[tuple[str, int]]:
    if backend.several is None:
        return [(backend.host, backend.port)]
    return [(address.host, address.port) for address in backend.several.addresses]


def hosts_of(backend: Backend) -> set[str]:
    """The names or addresses that the backend is reached by."""
    return {host for host, _ in _addresses(backend)}


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def _cluster(routes: Routes, backend: Backend, name: str, place: Place) -> JSON:
    is_default = backend.name == routes.default
    side = DEFAULT_SIDE if is_default else SERVICE_SIDE
    addresses = _addresses(backend)
    breaker = backend.breaker
    cluster: JSON = {
        "@type": f"{TYPE}envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC" if all(_is_address(host) for host, _ in addresses) else "STRICT_DNS",
        "connect_timeout": seconds(backend.timeouts.connect),
        "lb_policy": "LEAST_REQUEST",
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {
                    "lb_endpoints": [
                        {
                            "endpoint": {
                                "address": {"socket_address": {"address": host, "port_value": port}}
                            },
                            "metadata": {"filter_metadata": {"strangler": {"side": side}}},
                        }
                        for host, port in addresses
                    ]
                }
            ],
        },
        "dns_lookup_family": "V4_PREFERRED",
        "circuit_breakers": _limits(backend, place.workers),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{TYPE}envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "common_http_protocol_options": {"idle_timeout": seconds(backend.limits.keep_alive)},
                "explicit_http_config": {"http_protocol_options": {"enable_trailers": True}},
            }
        },
    }
    if backend.tls is not None:
        cluster["transport_socket"] = _backend_tls(
            backend.tls, backend.tls.server_name or addresses[0][0], place.authorities
        )
    if not is_default:
        # The default backend has no stand-in: to keep requests from it helps nobody.
        cluster["outlier_detection"] = {
            "consecutive_5xx": breaker.consecutive,
            "enforcing_consecutive_5xx": 100,
            "consecutive_gateway_failure": breaker.consecutive,
            "enforcing_consecutive_gateway_failure": 0,
            "enforcing_success_rate": 0,
            "interval": "0.250s",
            "base_ejection_time": seconds(breaker.pause),
            "max_ejection_time": seconds(breaker.longest_pause),
            "max_ejection_percent": 100,
        }
    return cluster


def _limits(backend: Backend, workers: int) -> JSON:
    # for each worker in the routes file, for the whole process in Envoy
    limits = backend.limits
    threshold = {
        "max_connections": limits.connections * workers,
        "max_pending_requests": limits.waiting * workers,
        "max_requests": (limits.connections + limits.waiting) * workers,
        "max_retries": (limits.connections + limits.waiting) * workers,
    }
    return {"thresholds": [threshold]}


def _backend_tls(tls: BackendTls, name: str, authorities: str) -> JSON:
    """TLS to a backend, whose certificate must bear `name`."""
    of_address = _is_address(name)
    common: JSON = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "alpn_protocols": ["http/1.1"],
        "validation_context": {
            "trusted_ca": {"filename": tls.ca or authorities},
            "match_typed_subject_alt_names": [
                {"san_type": "IP_ADDRESS" if of_address else "DNS", "matcher": {"exact": name}}
            ],
        },
    }
    if tls.certificate:
        common["tls_certificates"] = [
            {
                "certificate_chain": {"filename": tls.certificate},
                "private_key": {"filename": tls.key or tls.certificate},
            }
        ]
    return {
        "name": "tls",
        "typed_config": {
            "@type": f"{TRANSPORT}UpstreamTlsContext",
            "common_tls_context": common,
            **({} if of_address else {"sni": name}),  # RFC 6066 §3: addresses are no server names
        },
    }


# Routes


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of decision about a request. `percent`: the probability with which it could go to the canary."""

    name: str
    arm: str  # control or canary
    percent: float
    backend: str
    evidence: bool = True
    falls_back: bool = False


def kinds(routes: Routes, group: Group) -> list[Kind]:
    """Every kind of decision that a request of `group` can meet (decide.py)."""
    percent, default = float(group.percent), routes.default
    owned = group.owner == default
    found = [
        Kind("control", "control", percent, default),
        Kind("owner", "control", 0.0, default) if owned else Kind("owner", "canary", 100.0, group.backend),
    ]
    if group.backend != default:
        falls_back = _falls_back(routes, group)
        found.append(Kind("canary", "canary", percent, group.backend, falls_back=falls_back))
        if group.overrides.header or group.overrides.cookie:
            found.append(Kind("tester-control", "control", percent, default, evidence=False))
            found.append(Kind("tester-canary", "canary", percent, group.backend, evidence=False))
    return found


def route_name(group: str, kind: Kind) -> str:
    """What the access log says of a request: see `access_log.Route`."""
    evidence = "evidence" if kind.evidence else "tester"
    return f"{group}|{kind.arm}|{kind.percent:g}|{evidence}"


def packed_context(routes: Routes, group: Group | None) -> str:
    """What `split.lua` is told of a group, None for what no group claims; see `split.context`."""
    pages = "yes" if routes.any_sticky_user else "no"
    trusted = " ".join(routes.trusted)
    via = [
        routes.via.name.decode(),
        "yes" if routes.via.requests else "no",
        "yes" if routes.via.responses else "no",
        "yes" if group is not None and group.shadow is not None else "no",
    ]
    if group is None:
        return "\n".join([UNROUTED, *[""] * 2, "0", "", "", "", "", "", "no", pages, trusted, *via])
    owner = "control" if group.owner == routes.default else "canary"
    return "\n".join(
        [
            group.name, group.backend, routes.default, str(group.threshold if group.backend != routes.default else 0),
            owner, group.sticky.kind.value, group.sticky.name, group.overrides.header, group.overrides.cookie,
            "yes" if group.expose else "no", pages, trusted, *via,
        ]
    )  # fmt: skip


def route_configuration(routes: Routes, place: Place) -> JSON:
    """The whole table of routes."""
    return {
        "@type": f"{TYPE}envoy.config.route.v3.RouteConfiguration",
        "name": ROUTES_NAME,
        "request_headers_to_remove": [ARM_HEADER],
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": list(_routes(routes, place))}],
        # who answered, for the filter alone: it takes it out again
        "response_headers_to_add": [
            {
                "header": {"key": SIDE_HEADER, "value": "%UPSTREAM_METADATA(strangler:side)%"},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ],
    }


def _routes(routes: Routes, place: Place) -> Iterator[JSON]:
    patterns = [(pattern, group) for group in routes.groups.values() for pattern in group.paths]
    # An exact path wins over `/*`, a longer `/*` over a shorter one: Envoy takes the first that matches.
    patterns.sort(key=lambda item: (item[0].endswith("/*"), -len(item[0])))
    for pattern, group in patterns:
        match: JSON = {"prefix": pattern[:-1]} if pattern.endswith("/*") else {"path": pattern}
        context = packed_context(routes, group)
        found = kinds(routes, group)
        for kind in found:
            action = _action(routes, group, kind, place)
            for ending, forwarded in (
                ("", action),
                *_tunnel(routes, action),
                *_shadowed(routes, group, kind, action, place),
            ):
                yield _route(
                    match={**match, "headers": [_arm(kind.name + ending)]},
                    name=route_name(group.name, kind),
                    action=forwarded,
                    context=context,
                )
        yield _route(  # the first match, before the filter has named a kind; no request is sent by it
            match=match,
            name=route_name(group.name, found[0]),
            action=_action(routes, group, found[0], place),
            context=context,
        )
    default = routes.backends[routes.default]
    action = _forward(routes, default, cluster_name(routes, default, place), default.timeouts.read)
    context = packed_context(routes, None)
    for ending, forwarded in _tunnel(routes, action):
        tunnels: JSON = {"prefix": "/", "headers": [_arm(UNCLAIMED + ending)]}
        yield _route(match=tunnels, name=UNROUTED, action=forwarded, context=context)
    yield _route(match={"prefix": "/"}, name=UNROUTED, action=action, context=context)


def _arm(value: str) -> JSON:
    return {"name": ARM_HEADER, "string_match": {"exact": value}}


def _tunnel(routes: Routes, action: JSON) -> Iterator[tuple[str, JSON]]:
    """For requests that ask for another protocol: what may stay silent for long is the tunnel, after that."""
    if routes.listen.upgrades:
        idle = {"idle_timeout": seconds(routes.listen.tunnel_timeout), "retry_policy": {"num_retries": 0}}
        yield TUNNEL_ENDING, {**action, **idle}


def _shadowed(
    routes: Routes, group: Group, kind: Kind, action: JSON, place: Place
) -> Iterator[tuple[str, JSON]]:
    """For requests that may also be sent to the other side: a share of them, by a draw of its own."""
    if group.shadow is None or kind.name not in ("control", "canary"):
        return
    other = routes.backends[group.backend if kind.name == "control" else routes.default]
    mark = {"header": {"key": SHADOW_HEADER, "value": "1"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    mirror = {
        "cluster": _mirror_cluster(other, group.shadow, routes, place)["name"],
        "runtime_fraction": {
            "default_value": {"numerator": round(group.shadow.percent * 10_000), "denominator": "MILLION"}
        },
        "disable_shadow_host_suffix_append": True,
        "request_headers_mutations": [{"append": mark}],
    }
    yield SHADOW_ENDING, {**action, "request_mirror_policies": [mirror]}


def _route(*, match: JSON, name: str, action: JSON, context: str) -> JSON:
    return {
        "name": name,
        "match": match,
        "route": action,
        "typed_per_filter_config": {
            "split": {
                "@type": f"{HTTP}lua.v3.LuaPerRoute",
                "filter_context": {"split": context},
            }
        },
    }


def _forward(routes: Routes, backend: Backend, cluster: str, read: float) -> JSON:
    # A stream's idle limit must leave the ordinary limits, which say whose silence it was, the first word.
    idle = max(routes.listen.body_timeout, read + LATE)
    total = backend.timeouts.total
    return {
        "cluster": cluster,
        "timeout": "0s",
        "idle_timeout": seconds(idle),
        "retry_policy": {
            "num_retries": 0,
            "per_try_idle_timeout": seconds(read),
            **({"per_try_timeout": seconds(total)} if total is not None else {}),
        },
    }


def _action(routes: Routes, group: Group, kind: Kind, place: Place) -> JSON:
    backend = routes.backends[kind.backend]
    timeouts = group.timeouts if kind.arm == "canary" else backend.timeouts
    name = fallback_name if kind.falls_back else cluster_name
    action = _forward(routes, backend, name(routes, backend, place), timeouts.read)
    retry = action["retry_policy"]
    retry.pop("per_try_timeout", None)
    if timeouts.total is not None:
        retry["per_try_timeout"] = seconds(timeouts.total)
    if kind.falls_back:
        retry["num_retries"] = 1
        retry["retry_on"] = "5xx,reset,connect-failure,refused-stream"
        retry["retry_back_off"] = {"base_interval": "0.001s", "max_interval": "0.001s"}
        retry["retry_priority"] = {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {
                "@type": f"{TYPE}envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                "update_frequency": 1,
            },
        }
    return action


# Where it all comes from


def bootstrap(*, admin_socket: str, listeners: JSON, clusters: JSON) -> JSON:
    """What Envoy is started with: its admin interface on a Unix socket, and where the rest comes from."""
    return {
        "node": {"id": "strangler", "cluster": "strangler"},
        "admin": {"address": {"pipe": {"path": admin_socket, "mode": 0o600}}},
        "dynamic_resources": {"lds_config": listeners, "cds_config": clusters},
    }


def discovery_response(version: str, resources: list[JSON]) -> JSON:
    """A file of resources as Envoy's watcher reads it."""
    return {"version_info": version, "resources": resources}


def file_source(path: str, directory: str) -> JSON:
    """A ConfigSource: a file that is replaced by renaming another one into its directory."""
    return {
        "path_config_source": {"path": path, "watched_directory": {"path": directory}},
        "resource_api_version": "V3",
    }
