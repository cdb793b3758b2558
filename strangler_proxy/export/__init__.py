"""The routes file as static configuration for others: what `strangler export` writes.

    routes file ─► judge.py        what the target cannot do: refused by line where leaving it out would be wrong,
                                   else told as a note
                ─► envoy.py        one file for Envoy, with the engine's own listener, routes and Lua
                ─► gateway_api.py  Gateway and HTTPRoutes for Kubernetes
                ─► document.py     YAML, the notes at its top

All pure. Nobody follows the routes file after an export, and no outcome comes back: no gate and no roll-back looks at
such traffic. `envoy/` is the engine that has both.
"""
