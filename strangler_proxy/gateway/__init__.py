"""What a group of routes may ask of the proxy besides forwarding. Each is optional and absent unless asked for.

| asked for | pure core | duty (`strangler_proxy/duties.py`) | section of the routes file |
|---|---|---|---|
| rate limits | `rates.py` | `limiting.py`, state shared by all workers in `rate_table.py` | `sections/rates.py` |
| authentication | `auth.py`, `tokens.py`, `remembered.py` | `guarding.py`, `key_sources.py` | `sections/auth.py` |
| header and path transforms | `transform.py` | `transforming.py` | `sections/transform.py` |
| cache | `rfc9111.py`, `cache_store.py` | `caching.py` | `sections/cache.py` |

Duties are asked in the order limits, authentication, limits by token subject, transforms, cache: `assemble.py` builds
them. What they remember beyond one version of the routes is in `state.py`.
"""
