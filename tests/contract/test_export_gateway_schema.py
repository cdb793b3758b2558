"""What `strangler export gateway-api` writes, judged as a Kubernetes API server does: by the published schemas,
with their defaults, bounds and CEL rules."""

import json
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import celpy
import pytest
from celpy.adapter import json_to_cel
from celpy.evaluation import CELEvalError
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from chassis.problems import InvalidFileError
from strangler_proxy.export.gateway_api import Cluster, Service, gateway_file
from strangler_proxy.routes import parse_with_places

SCHEMAS = Path(__file__).parent / "gateway_api"

FULL = """
version: 1
backends:
  monolith: {url: http://127.0.0.1:8001, timeouts: {total: 30000}}
  catalog: {url: "http://catalog.products.svc.cluster.local:8101", timeouts: {total: 100500}}
  Order_Desk: {instances: ["http://10.0.0.1:8102", "http://10.0.0.2:8102"], health: {path: /health}}
default: monolith
groups:
  catalog:
    backend: catalog
    paths: [/api/products, "/api/products/*", "/api/old/*", /api/latest]
    percent: 12.34
    overrides: {header: X-Strangler-Side, cookie: side}
    shadow: {percent: 2.5, timeout: 1000}
    transform:
      request: {set: {X-Api: "2"}, add: {Accept-Language: en}, remove: [X-Debug]}
      response: {remove: [Server]}
      canary: {request: {set: {X-New: "1"}}}
      path: {exact: {/api/latest: /api/newest}, prefix: {/api/old: /api/v2}}
  Order_desk: {backend: Order_Desk, paths: ["/api/orders/*"], percent: 0, owner: Order_Desk, shadow: {percent: 100}}
  many: {backend: catalog, paths: [PATHS], percent: 100, shadow: {percent: 1}, overrides: {header: X-Side}}
""".replace("PATHS", ", ".join(f'"/many/{number}/*"' for number in range(12)))

SMALL = """
version: 1
backends: {monolith: {url: "http://monolith:80"}, catalog: {url: "http://catalog:80"}}
default: monolith
groups:
  catalog: {backend: catalog, paths: [/a, "/a/*"], percent: 10}
"""


def manifests(text: str, **cluster: Any) -> list[dict[str, Any]]:
    """The documents as `kubectl` reads them."""
    written = gateway_file(*parse_with_places(text.encode(), "routes.yaml"), Cluster(**cluster)).text
    return [document for document in YAML(typ="safe").load_all(written) if document is not None]


def _closed(schema: Any) -> Any:
    """With fields that the schema does not know refused (the server would drop them and warn)."""
    match schema:
        case {"properties": dict()}:
            closed = {key: _closed(value) for key, value in schema.items() if key != "properties"}
            closed["properties"] = {key: _closed(value) for key, value in schema["properties"].items()}
            return closed | {"additionalProperties": False}
        case dict():
            return {key: _closed(value) for key, value in schema.items()}
        case list():
            return [_closed(value) for value in schema]
        case _:
            return schema


def _defaulted(schema: dict[str, Any], value: Any) -> Any:
    if isinstance(value, dict):
        known = schema.get("properties", {})
        filled = dict(value)
        for name, inner in known.items():
            if name not in filled and "default" in inner:
                filled[name] = inner["default"]
        return {name: _defaulted(known.get(name, {}), inner) for name, inner in filled.items()}
    if isinstance(value, list):
        return [_defaulted(schema.get("items", {}), inner) for inner in value]
    return value


@cache
def _program(rule: str) -> celpy.Runner:
    environment = celpy.Environment()
    return environment.program(environment.compile(rule))


@cache
def _holds(rule: str, value: str) -> str:
    """Empty, or what is wrong. A rule that cannot be evaluated refuses, as it does on a server."""
    try:
        return "" if _program(rule).evaluate({"self": json_to_cel(json.loads(value))}) else "is broken"
    except CELEvalError as error:
        return f"cannot be evaluated: {error}"


def _broken_rules(schema: dict[str, Any], value: Any, where: str) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        if said := _holds(rule["rule"], json.dumps(value)):
            yield f"{where}: {rule['message']}: {said}"
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _broken_rules(schema.get("properties", {}).get(name, {}), inner, f"{where}.{name}")
    if isinstance(value, list):
        for position, inner in enumerate(value):
            yield from _broken_rules(schema.get("items", {}), inner, f"{where}[{position}]")


def faults(manifest: dict[str, Any]) -> list[str]:
    """Everything that is wrong with a manifest."""
    schema = json.loads((SCHEMAS / f"{manifest['kind']}.json").read_text(encoding="utf-8"))
    closed = _closed(schema)
    closed["properties"]["metadata"] = {"type": "object"}
    filled = _defaulted(schema, manifest)
    found = [
        f"{error.json_path}: {error.message}" for error in Draft202012Validator(closed).iter_errors(filled)
    ]
    return [*found, *_broken_rules(schema, filled, "$")]


def test_everything_that_can_be_written_is_legal() -> None:
    made = manifests(FULL, namespace="shop", services={"monolith": Service("shop", 80, "legacy")})
    assert [manifest["kind"] for manifest in made] == ["Gateway"] + ["HTTPRoute"] * (len(made) - 1)
    assert len(made) > 5, "so many matches do not fit into one HTTPRoute"
    names = [manifest["metadata"]["name"] for manifest in made[1:]]
    assert len(set(names)) == len(names)
    for manifest in made:
        assert faults(manifest) == [], manifest["metadata"]["name"]


def test_tls_in_front_is_a_listener_with_a_secret(tmp_path: Path) -> None:
    certificate, key = tmp_path / "tls.pem", tmp_path / "tls.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=test", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    gateway = manifests(FULL + f"tls: {{certificate: {certificate}, key: {key}}}\n", gateway="front")[0]
    assert faults(gateway) == []
    (listener,) = gateway["spec"]["listeners"]
    assert (listener["protocol"], listener["port"]) == ("HTTPS", 443)
    assert listener["tls"]["certificateRefs"][0]["name"] == "front-tls"
    del listener["tls"]["certificateRefs"]
    assert any("certificateRefs" in fault for fault in faults(gateway))


def _rule(made: list[dict[str, Any]]) -> dict[str, Any]:
    rule: dict[str, Any] = made[1]["spec"]["rules"][0]
    return rule


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rule: rule["matches"][0]["path"].update(value="/a//b"), "must not contain '//'"),
        (lambda rule: rule["matches"][0]["path"].update(value="/a%2Fb"), "must not contain '%2F'"),
        (lambda rule: rule["matches"].extend(rule["matches"] * 11), "is too long"),
        (lambda rule: rule["backendRefs"][0].pop("port"), "Must have port for Service reference"),
        (lambda rule: rule["backendRefs"][0].update(weight=-1), "less than the minimum"),
        (lambda rule: rule["timeouts"].update(request="5 s"), "does not match"),
        (lambda rule: rule["filters"].append({"type": "URLRewrite"}), "filter.urlRewrite must be specified"),
        (lambda rule: rule["filters"].append(rule["filters"][0]), "cannot be repeated"),
        (lambda rule: rule.update(backendrefs=[]), "'backendrefs' was unexpected"),
        (
            lambda rule: rule["filters"].append(
                {
                    "type": "URLRewrite",
                    "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/x"}},
                }
            ),
            "exactly one PathPrefix match",
        ),
    ],
)
def test_the_judge_refuses_what_is_wrong(change: Any, said: str) -> None:
    made = manifests(SMALL)
    assert faults(made[1]) == []
    change(_rule(made))
    assert any(said in fault for fault in faults(made[1])), faults(made[1])


@pytest.mark.parametrize(
    ("group", "field"),
    [
        ("auth: {user: true}", "groups.catalog.auth"),
        ("rate_limit: [{by: ip, requests: 5}]", "groups.catalog.rate_limit"),
        (
            "transform: {path: {regex: {match: '/api/(.*)', to: '/\\1'}}}",
            "groups.catalog.transform.path.regex",
        ),
        ("transform: {path: {exact: {/api/a: /b}}}", "groups.catalog.transform.path"),
        ("transform: {canary: {path: {exact: {/api/a: /b}}}}", "groups.catalog.transform.canary.path"),
    ],
)
def test_what_would_go_wrong_without_is_refused_by_line(group: str, field: str) -> None:
    text = f"""
version: 1
backends: {{monolith: {{url: "http://127.0.0.1:1"}}, catalog: {{url: "http://127.0.0.1:2"}}}}
default: monolith
groups:
  catalog:
    backend: catalog
    percent: 10
    paths: [/api/*]
    {group}
"""
    with pytest.raises(InvalidFileError) as refused:
        manifests(text)
    assert [(problem.field, problem.line) for problem in refused.value.problems] == [(field, 10)]


def test_backends_behind_tls_and_paths_that_cannot_be_matched_are_refused() -> None:
    text = FULL.replace("monolith: {url: http://127", "monolith: {url: https://127")
    text = text.replace("127.0.0.1:8001", "127.0.0.1:8001, tls: {}").replace("/api/latest]", '"/api//x"]')
    with pytest.raises(InvalidFileError) as refused:
        manifests(text.replace("exact: {/api/latest: /api/newest}, ", ""))
    fields = {problem.field for problem in refused.value.problems}
    assert fields == {"backends.monolith.tls", "groups.catalog.paths.3"}
