"""One file that Envoy runs by itself: the engine's clusters, routes, listener and Lua, put together. Pure.

The split is the Lua filter's, not `weighted_clusters`: those draw anew for each request, while here the same users
get the same side as from the proxy that wrote the file, given the same secret. Percentages are fixed in the file.
"""

from chassis.yamlfile import Places
from strangler_proxy.envoy import front, render
from strangler_proxy.envoy.capability import capability_faults
from strangler_proxy.export.document import document
from strangler_proxy.export.judge import Export, left_out
from strangler_proxy.table import Routes

AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"  # where Debian, Alpine and Envoy's own image keep them

# By the last key of its path: what it means that it is not there.
_BEARABLE = {
    "position": "who has just written may read an older state from the other side",
    "read_your_writes": "who has just written may read an older state from the other side",
    "limits": "the group has no limit of requests under way",
    "in_flight": "the backend has no limit of requests under way but connections and waiting",
    "window": "instances are ejected by failures in a row alone",
    "rate": "instances are ejected by failures in a row alone",
    "probes": "an ejected instance that comes back takes its whole share at once",
    "cache": "every request reaches a backend",
    "health": "instances are ejected when they fail requests, not before",
    **dict.fromkeys(("patience", "max_body", "examples", "rules"), "a mirror's answers are not compared"),
    "issuers": "no group that is left asks for a token",
    "connections": "the number of clients' connections has no limit",
    "min_body_rate": "a client may send as slowly as the time-outs allow",
}

# The secret is not in the file. It comes as the proxy gets it, and without it the file does not load.
_SETTING = """(function()
  local secret = os.getenv("STRANGLER_COOKIE_SECRET") or ""
  if #secret < 32 then
    error("set STRANGLER_COOKIE_SECRET, 32 bytes at least, to what the proxy has")
  end
  return (secret:gsub(".", function(char)
    return string.format("%02x", char:byte())
  end))
end)"""

_ENVIRONMENT_NOTE = (
    "STRANGLER_COOKIE_SECRET in Envoy's environment, as the proxy has it: with another one users are other users, "
    "and change sides. The program does not load without it."
)
_FIXED_NOTE = (
    "Percentages, like everything else, are those of the routes file when this was written: nobody follows it, and "
    "the controller cannot change them. Write the file again after an edit, and have Envoy take it up."
)


def envoy_file(routes: Routes, places: Places, place: render.Place) -> Export:
    """The static configuration. Raises InvalidFileError with what Envoy cannot do and must not leave out."""
    notes = (
        _ENVIRONMENT_NOTE,
        f"envoy --concurrency {place.workers}: limits are counted for as many threads.",
        _FIXED_NOTE,
        "Outcomes are lines on standard output that nobody reads: no gate, no automatic roll-back.",
        *_paths(routes, place),
        *left_out(
            capability_faults(routes, places, authorities=place.authorities),
            bearable=_BEARABLE,
            routes=routes,
        ),
    )
    table = render.route_configuration(routes, place)
    table.pop("@type")
    listener = front.listener(
        routes, place, lua=render.lua_source(_SETTING), table=front.fixed(table), certificate_source=None
    )
    listener.pop("@type")
    resources: render.JSON = {"listeners": [listener], "clusters": render.clusters(routes, place)}
    for cluster in resources["clusters"]:
        cluster.pop("@type")
    if routes.tls is not None:
        secret = front.certificate(routes.tls.certificate, routes.tls.key)
        secret.pop("@type")
        resources["secrets"] = [secret]
    title = f"Envoy, static, from {places.file} (version {routes.version}) by `strangler export envoy`."
    return Export(document(title, notes, [{"static_resources": resources}]), notes)


def _paths(routes: Routes, place: render.Place) -> list[str]:
    """Files that must be where Envoy runs."""
    named = [routes.tls.certificate, routes.tls.key] if routes.tls is not None else []
    for backend in routes.backends.values():
        if backend.tls is not None:
            named += [backend.tls.ca or place.authorities, backend.tls.certificate, backend.tls.key]
    found = sorted({name for name in named if name})
    return [f"Files where Envoy runs: {', '.join(found)}."] if found else []
