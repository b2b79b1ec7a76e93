"""The ground: a free subnet, what is made or given there, and that its failure is not taken for the platform's."""

from __future__ import annotations

import base64
import http.server
import ipaddress
import json
import random
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.drivers.shell import OperatorShell
from harness.errors import EnvironmentFailed, ExitStatus, HarnessError, Misconfigured
from harness.record.log import Recorder
from harness.runs import ground as module
from harness.runs.ground import SUBNETS, free_subnet, make_ground
from harness.runs.workplace import Workplace
from harness.seams.wait import Waiter
from harness.setup.cache import Cache
from harness.setup.toolchain import Toolchain
from tests.fakes import FakeClock, FakeRunner
from tests.places import HANDED, a_run, declaring, recorded

HEADER = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
pytestmark = pytest.mark.usefixtures("temporary")


@pytest.fixture
def place(root: Path, runner: FakeRunner) -> Iterator[Workplace]:
    """A workplace that is open."""
    with a_run(root, runner) as run:
        place = Workplace(run, run.folder)
        environment = {"PATH": "/opt/tools", "TARGET": "local"}
        OperatorShell.open(runner, place.shell_state, place.operators, environment)
        place.target_folder.mkdir(parents=True)
        (place.target_folder / "variables.tf").write_text(declaring(HANDED))
        yield place


@pytest.fixture
def toolchain(root: Path, tmp_path: Path, recorder: Recorder, runner: FakeRunner) -> Toolchain:
    toolchain = Toolchain(root, Cache(tmp_path / "cache"), runner, recorder, Waiter(recorder))
    toolchain.machine_image = "platform-machine:abc"
    return toolchain


# -- subnets -------------------------------------------------------------------------------------------------------


def routes(*networks: str) -> str:
    """Lines of /proc/net/route, whose words are hexadecimal in the machine's byte order."""

    def word(address: ipaddress.IPv4Address) -> str:
        return f"{int.from_bytes(address.packed, sys.byteorder):08X}"

    lines = [
        f"eth0\t{word(net.network_address)}\t00000000\t0001\t0\t0\t0\t{word(net.netmask)}\t0\t0\t0\n"
        for net in map(ipaddress.ip_network, networks)
        if isinstance(net, ipaddress.IPv4Network)
    ]
    return HEADER + "".join(lines)


@pytest.mark.parametrize("taken", [["10.0.0.0/8"], ["10.208.0.0/12"], ["10.208.0.0/13", "10.216.0.0/13"]])
def test_no_free_subnet_is_the_environments_failure(taken: list[str]) -> None:
    with pytest.raises(EnvironmentFailed, match=r"no /24 network of 10\.208\.0\.0/12 is free on this machine"):
        free_subnet(routes("0.0.0.0/0", "192.168.1.0/24", "198.18.0.0/15", *taken), random.Random(0))


@pytest.fixture(autouse=True)
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The routes of every table, none of which is of the machine that the tests run on."""
    monkeypatch.setattr(module, "TABLES", tmp_path / "fib_trie")
    return tmp_path / "fib_trie"


# as the kernel prints it, of a VPN whose routes stand in a table of its own
TRIE = """Id 52:
  |-- {}
     /{} link UNICAST
Id 53:
  |-- 0.0.0.0
     /0 link UNICAST
Local:
  +-- 96.0.0.0/3 2 0 2
     |-- 100.64.0.9
        /32 host LOCAL
     +-- 127.0.0.0/31 1 0 0
        |-- 127.0.0.0
           /8 host LOCAL
"""


def test_a_route_of_any_table_takes_its_subnets(tables: Path) -> None:
    tables.write_text(TRIE.format("10.208.0.0", 13))
    found = {free_subnet(routes("0.0.0.0/0"), random.Random(seed)) for seed in range(50)}

    assert all(net.subnet_of(ipaddress.IPv4Network("10.216.0.0/13")) for net in found)


@pytest.mark.parametrize("taken", [("10.208.0.0", 12), ("10.0.0.0", 8)])
def test_where_a_vpn_leads_all_of_the_block_away_another_one_is_taken(tables: Path, taken: tuple[str, int]) -> None:
    tables.write_text(TRIE.format(*taken))

    assert free_subnet(HEADER, random.Random(0)).subnet_of(module.LAST_RESORT)


@pytest.mark.parametrize("own", ["10.211.7.0/24", "10.211.7.128/25", "10.211.7.9/32"])
def test_the_one_free_subnet_is_found_and_none_that_a_route_touches(own: str) -> None:
    free, touched = ipaddress.IPv4Network("10.222.3.0/24"), ipaddress.IPv4Network("10.211.7.0/24")
    others = [
        rest
        for half in SUBNETS.address_exclude(free)
        for rest in (half.address_exclude(touched) if touched.subnet_of(half) else [half])
    ]

    assert free_subnet(routes(own, *map(str, others)), random.Random(0)) == free


def test_a_default_route_takes_no_subnet() -> None:
    sample = HEADER + (
        "eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
    )
    found = free_subnet(sample, random.Random(0))

    assert (found.prefixlen, found.subnet_of(SUBNETS)) == (24, True)


@pytest.mark.parametrize("text", ["", HEADER])
def test_a_machine_without_routes_has_free_subnets(text: str) -> None:
    assert free_subnet(text, random.Random(0)).subnet_of(SUBNETS)


def test_runs_at_once_take_different_subnets() -> None:
    found = {free_subnet(routes("0.0.0.0/0"), random.Random(seed)) for seed in range(10)}

    assert len(found) > 7


# -- the ground ----------------------------------------------------------------------------------------------------


@pytest.fixture
def ground(root: Path) -> Path:
    module = root / "infra/ground/local"
    module.mkdir(parents=True)
    (module / "main.tf").write_text(declaring(("run_id", "machine_image", "subnet", "name_key")))
    return module


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A discovery service and an image registry, as far as their health goes."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path in ("/health", "/v2/") else 404)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
        thread.start()
        # a name server, too, for all that is asked of it here
        monkeypatch.setattr("harness.runs.ground.DNS", server.server_port)
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def printed(address: str) -> str:
    values = {
        "discovery-service": f"http://{address}/v2/keys/discovery",
        "image-registry": address,
        "name-server": "127.0.0.1",
    }
    return json.dumps({name: {"value": value} for name, value in values.items()})


@pytest.mark.parametrize("command", ["init", "apply", "output"])
def test_a_ground_that_cannot_be_made_is_not_the_platforms_fault(
    place: Workplace, toolchain: Toolchain, runner: FakeRunner, ground: Path, command: str
) -> None:
    runner.on("terraform").on(f"terraform {command}", status=1, stderr="Cannot connect to the Docker daemon")

    with pytest.raises(HarnessError, match="Cannot connect to the Docker daemon") as failed:
        make_ground(place, toolchain)
    assert failed.value.status is ExitStatus.ENVIRONMENT_FAILED


def test_a_subnet_that_another_run_took_is_given_up_for_the_next(
    place: Workplace, toolchain: Toolchain, runner: FakeRunner, ground: Path, service: str
) -> None:
    tried = []

    def taken() -> None:
        tried.append(json.loads((place.ground_folder / "run.auto.tfvars.json").read_text())["subnet"])
        if len(tried) == 3:
            runner.on("terraform apply")

    runner.on("terraform init").on("terraform output", printed(service))
    runner.on("terraform apply", status=1, stderr="Pool overlaps with other one on this address space", does=taken)
    make_ground(place, toolchain)

    assert len(tried) == 3
    assert len([call for call in runner.calls if call.startswith("terraform apply")]) == 4


def test_a_machine_whose_subnets_are_all_taken_is_the_environments_failure(
    place: Workplace, toolchain: Toolchain, runner: FakeRunner, ground: Path
) -> None:
    runner.on("terraform init").on("terraform apply", status=1, stderr="Pool overlaps with other one")

    with pytest.raises(EnvironmentFailed, match="the ground could not be made"):
        make_ground(place, toolchain)
    assert len([call for call in runner.calls if call.startswith("terraform apply")]) == 5


def test_what_terraform_says_of_a_ground_that_cannot_be_made_is_told_whole(
    place: Workplace, toolchain: Toolchain, runner: FakeRunner, ground: Path
) -> None:
    framed = (
        "│ Error running './look': status 1. Output:\n│ 10.0.0.12: it has a filter of its own (nft list\n│ ruleset)"
    )
    runner.on("terraform init").on("terraform apply", status=1, stderr=framed)

    with pytest.raises(EnvironmentFailed) as failed:
        make_ground(place, toolchain)
    assert str(failed.value) == (
        "the ground could not be made: 10.0.0.12: it has a filter of its own (nft list ruleset)"
    )


def test_a_ground_that_does_not_answer_is_the_environments_failure(
    place: Workplace, toolchain: Toolchain, runner: FakeRunner, ground: Path
) -> None:
    runner.on("terraform").on("terraform output", printed("127.0.0.1:9"))
    place.run.waiter = Waiter(place.run.recorder, FakeClock(), every=10)

    with pytest.raises(EnvironmentFailed, match=r"the ground does not answer .*Connection"):
        make_ground(place, toolchain)


def test_a_name_server_that_does_not_answer_is_the_grounds(
    place: Workplace,
    toolchain: Toolchain,
    runner: FakeRunner,
    ground: Path,
    service: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("harness.runs.ground.DNS", 9)
    runner.on("terraform").on("terraform output", printed(service))
    place.run.waiter = Waiter(place.run.recorder, FakeClock(), every=10)

    with pytest.raises(EnvironmentFailed, match=r"name server answer.*ConnectionRefusedError"):
        make_ground(place, toolchain)


def test_a_ground_that_answers_is_handed_to_the_operator_and_the_target(
    place: Workplace, toolchain: Toolchain, runner: FakeRunner, ground: Path, service: str
) -> None:
    runner.on("terraform").on("terraform output", printed(service))
    make_ground(place, toolchain)

    assert place.shell.env["DISCOVERY_SERVICE"] == f"http://{service}/v2/keys/discovery"
    handed_over = json.loads((place.target_folder / "run.auto.tfvars.json").read_text())
    variables = json.loads((place.ground_folder / "run.auto.tfvars.json").read_text())
    assert handed_over == {
        "image_registry": service, "machine_image": "platform-machine:abc", "name_server": "127.0.0.1",
        "name_key": variables["name_key"],
    }  # fmt: skip
    assert variables["run_id"] == place.run_id
    assert ipaddress.IPv4Network(variables["subnet"]).subnet_of(SUBNETS)


def test_a_ground_is_told_what_it_declares_and_what_the_operator_says_of_the_target(
    place: Workplace, toolchain: Toolchain, runner: FakeRunner, ground: Path, service: str
) -> None:
    (ground / "main.tf").write_text(declaring(("run_id", "archive", "target_folder", "machine_image")))
    (place.target_folder / "hosts.auto.tfvars").write_text('hosts = ["192.0.2.10"]\n')
    toolchain.host_bundle, toolchain.services_archive = Path("/cache/bundle-1"), Path("/cache/services-1/services.tar")
    runner.on("terraform").on("terraform output", printed(service))
    make_ground(place, toolchain)

    assert json.loads((place.ground_folder / "run.auto.tfvars.json").read_text()) == {
        "run_id": place.run_id, "archive": "/cache/services-1/services.tar", "machine_image": "/cache/bundle-1",
        "target_folder": str(place.target_folder),
    }  # fmt: skip
    assert (place.ground_folder / "hosts.auto.tfvars").read_text() == 'hosts = ["192.0.2.10"]\n'
    handed_over = json.loads((place.target_folder / "run.auto.tfvars.json").read_text())
    assert handed_over["machine_image"] == "/cache/bundle-1"


def test_a_ground_that_can_do_without_is_told_what_is_given_and_that_is_not_waited_for(
    place: Workplace, toolchain: Toolchain, runner: FakeRunner, ground: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"discovery_service": "http://192.0.2.1/d", "image_registry": "192.0.2.1:5000", "name_server": "192.0.2.1"}
    (ground / "main.tf").write_text(declaring(given))
    for name, value in {**given, "name_key": "c2VjcmV0"}.items():
        monkeypatch.setenv(name.upper(), value)
    said = {name.replace("_", "-"): {"value": value} for name, value in given.items()}
    runner.on("terraform").on("terraform output", json.dumps(said))
    make_ground(place, toolchain)

    assert json.loads((place.ground_folder / "run.auto.tfvars.json").read_text()) == given
    assert place.shell.env["DISCOVERY_SERVICE"] == given["discovery_service"]
    handed_over = json.loads((place.target_folder / "run.auto.tfvars.json").read_text())
    assert (handed_over["name_server"], handed_over["name_key"]) == ("192.0.2.1", "c2VjcmV0")


@pytest.mark.parametrize("missing", ["DISCOVERY_SERVICE", "IMAGE_REGISTRY", "MACHINE_IMAGE"])
def test_a_target_without_a_ground_must_be_given_one(
    place: Workplace, toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    for name in {"DISCOVERY_SERVICE", "IMAGE_REGISTRY", "MACHINE_IMAGE"} - {missing}:
        monkeypatch.setenv(name, "given")

    with pytest.raises(Misconfigured, match=f"{missing} is not set"):
        make_ground(place, toolchain)


def test_a_ground_that_is_given_is_taken_as_it_is(
    place: Workplace, toolchain: Toolchain, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISCOVERY_SERVICE", "https://discovery.example")
    monkeypatch.setenv("IMAGE_REGISTRY", "registry.example")
    monkeypatch.setenv("MACHINE_IMAGE", "ami-1")
    make_ground(place, toolchain)

    assert runner.calls == []
    assert place.shell.env["DISCOVERY_SERVICE"] == "https://discovery.example"


def test_what_was_handed_over_before_stays(
    place: Workplace, toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISCOVERY_SERVICE", "IMAGE_REGISTRY", "MACHINE_IMAGE"):
        monkeypatch.setenv(name, "given")
    place.hand_over({"run_id": "x", "ssh_public_key": "y"})
    make_ground(place, toolchain)

    handed_over = json.loads((place.target_folder / "run.auto.tfvars.json").read_text())
    assert handed_over == {
        "run_id": "x", "ssh_public_key": "y", "image_registry": "given", "machine_image": "given", "name_server": "",
        "name_key": "",
    }  # fmt: skip


def test_a_name_server_is_taken_where_one_is_given(
    place: Workplace, toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"IMAGE_REGISTRY": "r", "MACHINE_IMAGE": "m", "NAME_SERVER": "192.0.2.53", "NAME_KEY": "c2VjcmV0"}
    for name, value in {"DISCOVERY_SERVICE": "d", **given}.items():
        monkeypatch.setenv(name, value)
    make_ground(place, toolchain)

    handed_over = json.loads((place.target_folder / "run.auto.tfvars.json").read_text())
    assert handed_over == {name.lower(): value for name, value in given.items()}


def test_every_ground_has_a_key_of_its_own_for_its_name_server(
    root: Path, toolchain: Toolchain, runner: FakeRunner, ground: Path, service: str
) -> None:
    runner.on("terraform").on("terraform output", printed(service))
    keys = set()
    for run_id in ("20260801-120000-ab12", "20260801-120000-cd34"):
        with a_run(root, runner, run_id) as run:
            place = Workplace(run, run.folder)
            OperatorShell.open(runner, place.shell_state, place.operators, {"PATH": "/opt/tools", "TARGET": "local"})
            place.target_folder.mkdir(parents=True)
            (place.target_folder / "variables.tf").write_text(declaring(HANDED))
            make_ground(place, toolchain)
            keys.add(json.loads((place.ground_folder / "run.auto.tfvars.json").read_text())["name_key"])

    assert len(keys) == 2
    assert [len(base64.b64decode(key, validate=True)) for key in keys] == [32, 32]


def test_the_key_of_the_name_server_is_never_recorded(
    place: Workplace, toolchain: Toolchain, runner: FakeRunner, ground: Path, service: str
) -> None:
    runner.on("terraform").on("terraform output", printed(service))
    make_ground(place, toolchain)
    key = json.loads((place.target_folder / "run.auto.tfvars.json").read_text())["name_key"]
    place.run.recorder.emit("note", text=f"the key is {key}")

    assert [event["text"] for event in recorded(place.run, "note")] == ["the key is [key of the name server]"]


def test_the_grounds_state_of_another_time_is_not_copied(
    place: Workplace, toolchain: Toolchain, runner: FakeRunner, ground: Path, service: str
) -> None:
    (ground / "terraform.tfstate").write_text("{}")
    (ground / ".terraform.lock.hcl").touch()
    runner.on("terraform").on("terraform output", printed(service))
    make_ground(place, toolchain)

    assert sorted(path.name for path in place.ground_folder.iterdir()) == ["main.tf", "run.auto.tfvars.json"]
    assert {call.env["PATH"] for call in runner.details if call.env} == {"/opt/tools"}
