"""A copy of the routes file fitted to a stack on other ports; the file a person wrote stays as it is."""

from collections.abc import Mapping
from functools import reduce
from io import StringIO
from operator import getitem
from pathlib import Path

from ruamel.yaml import YAML

from strangler_proxy.envoy.capability import refused_keys
from strangler_proxy.known_keys import KeyPath
from strangler_proxy.routes import load_routes, parse_with_places
from workshop.layout import Ports


def derive_routes(source: Path, target: Path, ports: Ports, *, expose: bool, engine: str) -> list[str]:
    """Write `source` to `target` with the backends at `ports` and every group that moves users at 0 %; comments stay.

    `expose` adds the header that tells who answered. What `engine` has not is left out: the keys, to be told to
    people. Raises InvalidFileError when `source` is not legal.
    """
    load_routes(source)
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    document = yaml.load(source.read_text(encoding="utf-8"))
    urls: Mapping[str, str] = {
        "monolith": f"http://127.0.0.1:{ports.monolith}",
        "catalog": f"http://127.0.0.1:{ports.catalog}",
    }
    for name, url in urls.items():
        if name in document["backends"]:
            document["backends"][name]["url"] = url
    for group in document.get("groups", {}).values():
        if "backend" in group:  # the others move nothing
            group["percent"] = 0
    if expose:
        document["expose"] = True
    left_out = _unknown_to(engine, source)
    for *above, last in left_out:
        del reduce(getitem, above, document)[last]
    text = StringIO()
    yaml.dump(document, text)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text.getvalue(), encoding="utf-8")
    load_routes(target)
    return [".".join(map(str, path)) for path in left_out]


def _unknown_to(engine: str, file: Path) -> list[KeyPath]:
    if engine != "envoy":
        return []
    paths = refused_keys(*parse_with_places(file.read_bytes(), str(file)))
    # what a group answers with cannot be taken from it: it goes whole, and its paths to the monolith
    return [path[:2] if path[-1] == "aggregate" else path for path in paths]
