"""Envoy as the data path, in place of Python workers: the same routes file, admin port, outcomes and controller.

    routes file ─► capability.py  what this engine can do; the rest is refused with its line
                ─► render.py      Routes ─► clusters and routes as Envoy reads them (pure); front.py: its listener
                ─► engine.py      written by atomic rename, in the order that drops nothing
                ─► Envoy          split.lua and digests.lua inside: who is asking, which side (LuaJIT)
                ─► access_log.py  its log lines ─► the same outcomes as a worker's (pure)
                ─► hub.py         sums and stream

`engine.py` is what `server.Parent` drives as if it were the fleet of workers; `process.py` is Envoy's process and
its admin interface, on a Unix socket in a private directory.

The decision is made in Envoy by a Lua filter, not by weighted clusters: those draw anew for each request, and a
user belongs to one side.
"""
