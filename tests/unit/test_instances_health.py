"""The table of health, and the lists that instances come from."""

from pathlib import Path

import pytest

from strangler_proxy.cluster import health
from strangler_proxy.cluster.discover import NoListError, from_environment, one_url, read_list
from strangler_proxy.cluster.health import Health, State
from strangler_proxy.cluster.several import (
    Address,
    FromDns,
    FromEnvironment,
    FromFile,
    HealthPolicy,
    Several,
    Source,
)
from strangler_proxy.table import Backend

POLICY = HealthPolicy("/health", down_after=3, up_after=2)


def after(probes: str, policy: HealthPolicy = POLICY) -> Health:
    """The health after probes: `+` good, `-` bad."""
    found = Health()
    for probe in probes:
        found = found.after(good=probe == "+", policy=policy)
    return found


@pytest.mark.parametrize(
    ("probes", "state"),
    [
        ("", State.NEW), ("+", State.UP), ("-", State.DOWN),
        ("+-", State.FAILING), ("+--", State.FAILING), ("+---", State.DOWN), ("+--+", State.UP),
        ("+--+--", State.FAILING), ("-+", State.RISING), ("-+-", State.DOWN), ("-++", State.UP),
        ("-+-+", State.RISING), ("-++-", State.FAILING),
    ],
)  # fmt: skip
def test_state_after_probes(probes: str, state: State) -> None:
    assert after(probes).state is state


def test_one_probe_is_enough_where_the_policy_says_so() -> None:
    quick = HealthPolicy("/", down_after=1, up_after=1)
    assert after("+-", quick).state is State.DOWN
    assert after("-+", quick).state is State.UP


def test_every_state_has_its_row_in_the_page() -> None:
    rows = [line for line in (health.__doc__ or "").splitlines() if line.startswith("| ")][1:]
    assert [row.strip("| ").split(":")[0].split(" ")[0] for row in rows] == [state.name for state in State]
    takes = {row.strip("| ").split(":")[0].split(" ")[0]: row.split("|")[2].strip() for row in rows}
    assert {state.name: "yes" if Health(state).up else "no" for state in State} == takes


def test_a_file_names_instances_in_yaml_or_json(tmp_path: Path) -> None:
    path = tmp_path / "instances.yaml"
    path.write_text("- http://10.0.0.2:81\n- http://10.0.0.1:81\n- http://10.0.0.1:81\n")
    assert read_list(path) == (Address("10.0.0.1", 81), Address("10.0.0.2", 81))
    path.write_text('["http://[::1]:81"]')
    assert read_list(path) == (Address("::1", 81),)
    assert read_list(path)[0].url == "http://[::1]:81"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no list"), (b"[]", "names no instance"), (b"http://a", "no list"), (b"[1]", "no list"),
        (b"[ftp://a]", "http://"), (b"[http://a/x]", "host and port alone"), (b"[", "list of URLs"), (b"\xff", "UTF-8"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_list_says_what_is_wrong(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "instances.yaml"
    path.write_bytes(content)
    with pytest.raises(NoListError, match=words) as raised:
        read_list(path)
    assert str(path) in str(raised.value)


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(NoListError, match="No such file"):
        read_list(tmp_path / "none.yaml")


def test_variables_name_instances_or_a_service_of_kubernetes() -> None:
    source = FromEnvironment("CATALOG")
    two = {"CATALOG": "http://h2:1, http://h1:1,"}
    assert from_environment(source, two) == (Address("h1", 1), Address("h2", 1))
    service = {"CATALOG_SERVICE_HOST": "fd00::1", "CATALOG_SERVICE_PORT": "80"}
    assert from_environment(source, service) == (Address("fd00::1", 80),)
    with pytest.raises(NoListError, match="CATALOG_SERVICE_HOST"):
        from_environment(source, {})
    with pytest.raises(NoListError, match="http://HOST:PORT"):
        from_environment(source, {"CATALOG": "h1:1"})


def test_a_backend_can_be_asked_directly_wherever_its_instances_come_from(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("[http://10.0.0.1:81, http://10.0.0.2:81]")

    def url(source: Source | None, *addresses: Address) -> str:
        first = addresses[0] if addresses else Address("", 0)
        backend = Backend("catalog", *first, several=Several(addresses, source))
        return one_url(backend, base=tmp_path, environment={"CATALOG": "http://10.0.0.3"})

    assert url(None, Address("h", 1), Address("h", 2)) == "http://h:1"
    assert url(FromFile("list.yaml")) == "http://10.0.0.1:81"
    assert url(FromDns("catalog.test", 82, 5.0)) == "http://catalog.test:82"
    assert url(FromEnvironment("CATALOG")) == "http://10.0.0.3:80"
    with pytest.raises(NoListError, match="No such file"):
        url(FromFile("none.yaml"))
