"""A reverse proxy that moves users, by percentage, from a monolith to its services.

How a request passes through, and which file each step lives in:

    client ─► downstream.py  parses (recognise.py: everyday heads, whole), keeps order, limits, streams
              └► exchange.py  one request's life (request.py: what was parsed; answers.py: our own answers)
                  ├ table.py      which group owns the path      (compiled once for each routes version)
                  ├ identity.py   who is asking                  (signed cookies, session, header, ip)
                  ├ decide.py     which arm answers              (buckets.py: sticky, monotone)
                  ├ headers.py    what is passed on
                  ├ upstream.py   pooled connection to a backend
                  └ account.py    what it adds to the outcomes (outcomes.py, clients.py)

`routes.py` is the only home of what a legal routes file is, `edit.py` changes one, `reload.py` follows it.
`server.py` is the parent process (`fleet.py` its workers, `hub.py` what they report, `admin.py` and `metrics.py` its
port). `start.py` begins a worker, compiled where there is a build (`speedups.py`); `worker.py` is one, `plane.py` the
data path in it; `link.py` is what they say to each other.

`duties.py` is what groups may ask for besides forwarding, `gateway/` what they can ask:
limits, authentication, transforms, a cache.

Pure: table, buckets, decide, identity, headers, outcomes, clients, gateway.auth,
gateway.cache_store, gateway.rfc9111, gateway.rates, gateway.remembered, gateway.tokens, gateway.transform.
"""
