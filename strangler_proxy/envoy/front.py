"""Envoy's front: the listener, its HTTP filters, its log and its certificate. Pure, as render.py.

In the engine it changes only when `listen` or `tls` do, for a change ends idle connections; the table of routes is
followed beside it.
"""

from strangler_proxy.envoy.render import HTTP, JSON, ROUTES_NAME, TRANSPORT, TYPE, Place, seconds
from strangler_proxy.table import Routes

STAT_PREFIX = "front"
CERTIFICATE = "front"

_NETWORK = f"{TYPE}envoy.extensions.filters.network."


LOG_FIELDS: dict[str, str] = {
    "route": "%ROUTE_NAME%",
    "digest": "%DYNAMIC_METADATA(strangler:digest)%",
    "id": "%DYNAMIC_METADATA(strangler:id)%",
    "path": "%REQ(:PATH)%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "side": "%UPSTREAM_METADATA(strangler:side)%",
    "connection": "%CONNECTION_ID%",
    "start": "%START_TIME(%s.%6f)%",
    "us": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
    "ms": "%DURATION%",
}
ATTEMPT_FIELDS: dict[str, str] = {
    "attempt": "%REQ(X-REQUEST-ID)%",
    "connection": "%CONNECTION_ID%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "start": "%START_TIME(%s.%6f)%",
    "ms": "%DURATION%",
}


def _log(fields: dict[str, str], filter_: JSON | None = None) -> JSON:
    return {
        "name": "outcomes",
        **({"filter": filter_} if filter_ else {}),
        "typed_config": {
            "@type": f"{TYPE}envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": "/dev/stdout",
            "log_format": {"json_format": fields},
        },
    }


def followed(source: JSON) -> JSON:
    """A table of routes that is followed at `source`."""
    return {"rds": {"route_config_name": ROUTES_NAME, "config_source": source}}


def fixed(table: JSON) -> JSON:
    """A table of routes that stays as it is."""
    return {"route_config": table}


def listener(routes: Routes, place: Place, *, lua: str, table: JSON, certificate_source: JSON | None) -> JSON:
    """The front. `lua` is the filter's program; `table` is what `followed` or `fixed` says of the routes;
    `certificate_source` is where the certificate comes from, None for one among the bootstrap's own secrets."""
    listen = routes.listen
    manager = {
        "@type": f"{_NETWORK}http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": STAT_PREFIX,
        "codec_type": "AUTO",
        **table,
        "access_log": [_log(LOG_FIELDS)],
        "generate_request_id": False,
        "use_remote_address": False,
        "skip_xff_append": True,
        "server_header_transformation": "PASS_THROUGH",
        "normalize_path": False,
        "merge_slashes": False,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "internal_address_config": {"unix_sockets": False},
        "http_protocol_options": {"accept_http_10": True, "enable_trailers": True},
        # what Envoy's own guide asks of an edge: .../configuration/best_practices/edge
        "http2_protocol_options": {
            "max_concurrent_streams": 100,
            "initial_stream_window_size": 65_536,
            "initial_connection_window_size": 1_048_576,
        },
        "common_http_protocol_options": {
            "idle_timeout": seconds(listen.idle_timeout),
            "headers_with_underscores_action": "ALLOW",
        },
        "request_headers_timeout": seconds(listen.header_timeout),
        "stream_idle_timeout": seconds(listen.body_timeout),
        "upgrade_configs": [{"upgrade_type": name.decode()} for name in listen.upgrades],
        "http_filters": [
            {
                "name": "split",
                "typed_config": {
                    "@type": f"{HTTP}lua.v3.Lua",
                    "default_source_code": {"inline_string": lua},
                },
            },
            {
                "name": "router",
                "typed_config": {
                    "@type": f"{HTTP}router.v3.Router",
                    "suppress_envoy_headers": True,
                    # Only failed attempts are of interest: what was answered the line of the request tells.
                    "upstream_log": [
                        _log(
                            ATTEMPT_FIELDS,
                            {
                                "or_filter": {
                                    "filters": [
                                        {
                                            "status_code_filter": {
                                                "comparison": {
                                                    "op": "GE",
                                                    "value": {
                                                        "default_value": 500,
                                                        "runtime_key": "strangler.failed_status",
                                                    },
                                                }
                                            }
                                        },
                                        {"response_flag_filter": {}},
                                    ]
                                }
                            },
                        )
                    ],
                },
            },
        ],
    }
    return {
        "@type": f"{TYPE}envoy.config.listener.v3.Listener",
        "name": "front",
        "address": {"socket_address": {"address": place.address, "port_value": place.port}},
        "per_connection_buffer_limit_bytes": 262_144,
        "filter_chains": [
            {
                "filters": [{"name": "http", "typed_config": manager}],
                **({"transport_socket": _front_tls(certificate_source)} if routes.tls is not None else {}),
            }
        ],
    }


def _front_tls(certificate_source: JSON | None) -> JSON:
    secret: JSON = {"name": CERTIFICATE}
    if certificate_source is not None:
        secret["sds_config"] = certificate_source
    return {
        "name": "tls",
        "typed_config": {
            "@type": f"{TRANSPORT}DownstreamTlsContext",
            "common_tls_context": {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificate_sds_secret_configs": [secret],
            },
        },
    }


def certificate(chain: str, key: str) -> JSON:
    """The front's certificate. Envoy reads PEM files again when their names change, and only then."""
    return {
        "@type": f"{TRANSPORT}Secret",
        "name": CERTIFICATE,
        "tls_certificate": {"certificate_chain": {"filename": chain}, "private_key": {"filename": key}},
    }
