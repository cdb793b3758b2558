"""Small legal files to begin from: a plan and a routes file that fit each other. Used by tests and by documentation."""

from pathlib import Path

ROUTES = """\
version: 1
backends:
  monolith: {url: http://127.0.0.1:8001}
  catalog: {url: http://127.0.0.1:8101}
default: monolith
groups:
  catalog:
    backend: catalog
    paths: ["/api/products", "/api/products/*"]
    percent: 0
    owner: monolith
    sticky: user
    fallback: true
"""

PLAN = """\
version: 1
name: catalog
group: catalog
routes: routes.yaml
proxy: {admin: http://127.0.0.1:8010}
databases:
  source: {dsn_env: SHOP_CDC_DSN, owner_dsn_env: SHOP_DATABASE_URL}
  target: {dsn_env: CATALOG_CDC_DSN, owner_dsn_env: CATALOG_DATABASE_URL}
stream: {slot: strangler_catalog, publication: strangler_catalog}
tables:
  product:
    target: item
    key: {item_id: id}
    columns: {item_id: id, title: name}
stages: [prepare, snapshot, stream, {ramp: 10}, {ramp: 25}, {ramp: 100}]
gates: {soak: 0s, min_requests: 10}
"""


def write(directory: Path, *, plan: str = PLAN, routes: str = ROUTES) -> Path:
    """Write both into `directory`. Returns the plan's path."""
    (directory / "routes.yaml").write_text(routes, encoding="utf-8")
    path = directory / "plan.yaml"
    path.write_text(plan, encoding="utf-8")
    return path
