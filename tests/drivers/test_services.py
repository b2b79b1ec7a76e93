"""The driver of services: what it asks the machines, in their own shell with a fake docker and curl, and what it makes
of the answers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from harness.drivers.services import TAKEN, Ambassador, Services
from harness.errors import AnswerNotUnderstood, CommandFailed, ExitStatus, PlatformWrong, WaitExpired
from harness.model.registration import is_address, registration
from harness.record.log import Recorder
from harness.seams.ssh import MachineUnreachable
from harness.seams.wait import NotAnswering, Waiter
from tests.fakes import FakeClock
from tests.places import program
from tests.transcripts.machines import FolderMachines, RecordedMachines

# a Docker Engine: `containers` holds a line "NAME ADDRESS..." for each container; what it is asked is in `asked`
DOCKER = """#!/bin/sh
cd "$(dirname "$0")/.." && echo "$*" >> asked
case "$1 $2 $3" in
"ps --format {{.Names}}") cut -d' ' -f1 containers ;;
"port "*" 80/tcp")
    grep -q "^$2 ." containers || { echo "Error response from daemon: No such container: $2" >&2; exit 1; }
    sed -n "s/^$2 //p" containers | tr ' ' '\\n' ;;
*) exit 64 ;;
esac
"""
SYSTEMCTL = """#!/bin/sh
[ "$*" = "is-active --quiet docker" ] || exit 64
exec test -e "$(dirname "$0")/../containers"
"""
# prints its arguments into a file, each with a NUL behind it
CURL = """#!/bin/sh
printf '%s\\0' "$@" > "$(dirname "$0")/../arguments"
exit "$(cat "$(dirname "$0")/../status")"
"""


class ShellMachines(FolderMachines):
    """Machines whose programs are those of their folder's bin, and then this machine's; a command is run as over
    SSH."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        for name in self.names:
            program(self.core(name), "docker", DOCKER)
            program(self.core(name), "systemctl", SYSTEMCTL)
            program(self.core(name), "curl", CURL)
            (self.core(name) / "status").write_text("0")

    def run(self, name: str, command: str, *, data: bytes = b"", ok: Iterable[int] = (0,)) -> str:
        environment = {**os.environ, "PATH": f"{self.core(name)}/bin:{os.environ['PATH']}"}
        argv = ["sh", "-c", f"{{ {command}\n}} </dev/null"]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True)
        if done.returncode not in ok:
            raise CommandFailed([command], done.returncode, done.stdout, done.stderr, where=name)
        return done.stdout

    def runs(self, name: str, *containers: str) -> None:
        """Docker runs on this machine, with these containers."""
        (self.core(name) / "containers").write_text("".join(f"{line}\n" for line in containers))

    def asked(self, name: str) -> list[str]:
        """What its Docker Engine was asked."""
        file = self.core(name) / "asked"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def shells(tmp_path: Path) -> ShellMachines:
    return ShellMachines(tmp_path / "machines")


@pytest.fixture
def machines() -> RecordedMachines:
    return RecordedMachines()


@pytest.fixture
def services(machines: RecordedMachines) -> Services:
    return Services(machines)


# -- where instances run ---------------------------------------------------------------------------------------------


def test_machine_without_docker_publishes_nothing_and_is_not_made_to_start_it(shells: ShellMachines) -> None:
    assert Services(shells).published("blog") == set()
    assert [shells.asked(name) for name in shells.names] == [[], [], []]


def test_machine_that_does_not_answer_is_not_one_that_runs_nothing(machines: RecordedMachines) -> None:
    machines.on("docker ps", "192.0.2.10:32768\n").on("docker ps", MachineUnreachable("it is silent"), "coreos-1")

    with pytest.raises(MachineUnreachable, match="it is silent"):
        Services(machines).published("blog")


@pytest.mark.parametrize(
    "other",
    [
        "blog-docker-reg",
        "blog-docker-reg-2",
        "blog-dynamic-amb",
        "jpblog",
        "jpblog-2",
        "blog-",
        "blog-2x",
        "blog2",
        "my-blog",
        "xblog-2",
    ],
)
def test_container_of_another_unit_is_none_of_the_service(shells: ShellMachines, other: str) -> None:
    shells.runs("coreos-0", f"{other} 192.0.2.10:32768")

    assert Services(shells).published("blog") == set()
    assert shells.asked("coreos-0") == ["ps --format {{.Names}}"]


def test_container_that_publishes_nothing_or_went_meanwhile_has_no_address(shells: ShellMachines) -> None:
    shells.runs("coreos-0", "blog", "blog-2 192.0.2.10:32769")

    assert Services(shells).published("blog") == {"192.0.2.10:32769"}
    assert "port blog 80/tcp" in shells.asked("coreos-0")


def test_machine_without_containers(shells: ShellMachines) -> None:
    for name in shells.names:
        shells.runs(name)

    assert Services(shells).published("blog") == set()


def test_instances_of_every_machine_and_several_of_one(shells: ShellMachines) -> None:
    shells.runs("coreos-0", "entry 192.0.2.10:80", "blog 192.0.2.10:32768", "jpblog 192.0.2.10:32769")
    shells.runs("coreos-1", "blog-2 192.0.2.11:32768", "blog-10 192.0.2.11:32770", "blog-docker-reg-2")

    services = Services(shells)

    assert services.published("blog") == {"192.0.2.10:32768", "192.0.2.11:32768", "192.0.2.11:32770"}
    assert services.published("jpblog") == {"192.0.2.10:32769"}


def test_every_address_of_an_instance_counts(shells: ShellMachines) -> None:
    shells.runs("coreos-0", "blog 0.0.0.0:32768 [::]:32768")

    assert Services(shells).published("blog") == {"0.0.0.0:32768", "[::]:32768"}


def test_machine_that_was_lost_is_not_asked(shells: ShellMachines, monkeypatch: pytest.MonkeyPatch) -> None:
    shells.runs("coreos-1", "blog 192.0.2.11:32768")
    shells.runs("coreos-2", "blog 192.0.2.12:32768")
    monkeypatch.setattr(shells, "_lost", {"coreos-2"})

    assert Services(shells).published("blog") == {"192.0.2.11:32768"}
    assert shells.asked("coreos-2") == []


# -- what is registered ----------------------------------------------------------------------------------------------


def keys(*values: str, **more: Any) -> str:
    """How etcd answers of a directory with these values."""
    nodes = [{"key": f"/services/blog/{number}", "value": value, "ttl": 4} for number, value in enumerate(values)]
    return json.dumps({"action": "get", "node": {"key": "/services/blog", "dir": True, "nodes": nodes} | more})


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "<html>503</html>",
        "null",
        "[]",
        '"node"',
        "5",
        "{}",
        '{"node": null}',
        '{"node": []}',
        '{"node": {"nodes": null}}',
        '{"node": {"nodes": [{"key": "/services/blog/a"}]}}',
        '{"node": {"nodes": ["a"]}}',
        '{"node": {"nodes": [',
    ],
)
def test_rubbish_of_etcd_is_not_an_empty_directory(machines: RecordedMachines, services: Services, answer: str) -> None:
    machines.on("keys/services/blog", answer)

    with pytest.raises(AnswerNotUnderstood, match=r"services/blog not understood|keys of blog not understood"):
        services.registered("blog")


@pytest.mark.parametrize("status", [28, 52, 56])
def test_etcd_that_is_silent_is_not_an_empty_directory(
    machines: RecordedMachines, services: Services, status: int
) -> None:
    machines.fails("keys/services/blog", status, f"curl: ({status}) Operation timed out", "coreos-0")

    with pytest.raises(NotAnswering, match="timed out") as raised:
        services.registered("blog")

    assert isinstance(raised.value, PlatformWrong) and raised.value.status is ExitStatus.PLATFORM_WRONG
    assert (raised.value.status_seen, raised.value.where) == (status, "coreos-0")
    assert "keys/services/blog" in raised.value.paste


NO_LEADER = '{"errorCode": 300, "message": "Raft Internal Error", "cause": "etcdserver: request timed out"}'


@pytest.mark.parametrize("answer", [NO_LEADER, '{"errorCode": 301, "message": "During Leader Election", "index": 5}'])
def test_etcd_without_a_leader_is_silent_though_it_answers(
    machines: RecordedMachines, services: Services, answer: str
) -> None:
    machines.on("keys/services/blog", answer)

    with pytest.raises(NotAnswering) as raised:
        services.registered("blog")

    assert isinstance(raised.value, PlatformWrong) and answer in raised.value.seen
    assert raised.value.where == "coreos-0" and "keys/services/blog" in raised.value.paste


@pytest.fixture
def waiter(recorder: Recorder, clock: FakeClock) -> Waiter:
    return Waiter(recorder, clock, every=1)


def test_etcd_that_is_silent_for_a_while_is_waited_for(
    machines: RecordedMachines, services: Services, waiter: Waiter, clock: FakeClock
) -> None:
    def silent(command: str) -> str:
        raise CommandFailed([command], 28, "", "curl: (28) Operation timed out", where="coreos-0")

    looks: list[Callable[[str], str]] = [silent, lambda _: NO_LEADER, lambda _: keys(registration("192.0.2.10:32768"))]
    machines.on("keys/services/blog", lambda command: looks.pop(0)(command))

    seen = waiter.until("it is registered", lambda: services.registered("blog"), bool, within=10)

    assert seen == {"192.0.2.10:32768"} and clock.slept == [1, 1]


def test_etcd_that_stays_silent_is_not_waited_for_for_ever(
    machines: RecordedMachines, services: Services, waiter: Waiter, clock: FakeClock
) -> None:
    """Nor does it pass for one where nothing is registered any more."""
    machines.on("keys/services/blog", NO_LEADER)

    with pytest.raises(WaitExpired, match="Raft Internal Error"):
        waiter.until("it is registered nowhere", lambda: services.registered("blog"), lambda it: not it, within=3)

    assert sum(clock.slept) == 3


def test_rubbish_of_etcd_is_not_waited_for(
    machines: RecordedMachines, services: Services, waiter: Waiter, clock: FakeClock
) -> None:
    machines.on("keys/services/blog", "<html>")

    with pytest.raises(AnswerNotUnderstood):
        waiter.until("it is registered", lambda: services.registered("blog"), bool, within=3)

    assert clock.slept == []


def test_directory_that_is_not_there_has_no_registrations(machines: RecordedMachines, services: Services) -> None:
    machines.on("keys/services/blog", '{"errorCode": 100, "message": "Key not found", "cause": "/services/blog"}')

    assert services.registered("blog") == set()


@pytest.mark.parametrize("answer", [keys(), '{"node": {"key": "/services/blog", "dir": true}}'])
def test_empty_directory_has_no_registrations(machines: RecordedMachines, services: Services, answer: str) -> None:
    """etcd leaves `nodes` out where there are none."""
    machines.on("keys/services/blog", answer)

    assert services.registered("blog") == set()


@pytest.mark.parametrize(
    "value",
    [
        "no JSON",
        "[]",
        "5",
        '"host"',
        "null",
        "",
        "{",
        '{"port": 80}',
        '{"host": "a"}',
        '{"host": "192.0.2.1", "port": "80"}',
        "192.0.2.1:80",
        "[" * 9999,
    ],
)
def test_value_that_is_no_registration_is_shown_as_it_stands(
    machines: RecordedMachines, services: Services, value: str
) -> None:
    machines.on("keys/services/blog", keys(registration("192.0.2.10:32768"), value))

    assert services.registered("blog") == {"192.0.2.10:32768", f"malformed: {value}"}


def test_registrations_are_asked_of_the_way_in_only(machines: RecordedMachines, services: Services) -> None:
    machines.on("keys/services/blog", keys(registration("192.0.2.10:32768"), registration("192.0.2.11:32769")))

    assert services.registered("blog") == {"192.0.2.10:32768", "192.0.2.11:32769"}
    ((machine, command),) = machines.asked
    assert machine == "coreos-0"
    assert command.endswith(" 'http://127.0.0.1:2379/v2/keys/services/blog?recursive=true'")
    assert "--max-time" in command and "--fail" not in command  # the body says what was wrong


def test_registration_of_an_address() -> None:
    assert json.loads(registration("192.0.2.10:32768")) == {"host": "192.0.2.10", "port": 32768}


@pytest.mark.parametrize("address", ["192.0.2.10", "192.0.2.10:", "", "192.0.2.10:http"])
def test_what_is_no_address_is_not_registered(address: str) -> None:
    with pytest.raises(ValueError):
        registration(address)


@pytest.mark.parametrize(
    "registered",
    [
        "",
        ":",
        "no JSON",
        "[]",
        "5",
        "192.0.2.10",
        "192.0.2.10:",
        ":32768",
        "192.0.2.10:http",
        "192.0.2.10:0",
        "192.0.2.10:-1",
        "192.0.2.10:65536",
        "192.0.2.10:80.0",
        "192.0.2.10:None",
        "192.0.2.10:True",
        "elsewhere:80",
        "192.0.2:80",
        "192.0.2.256:80",
        "192.0.2.10.1:80",
        "192.0.2.010:80",
        "[::1]:80",
        "::1:80",
        " 192.0.2.10:80",
        "a:192.0.2.10:80",
        '{"host": "192.0.2.10", "port": 80}',
        '{"host": "192.0.2.10"}',
    ],
)
def test_what_no_ambassador_can_follow(registered: str) -> None:
    assert not is_address(registered)


@pytest.mark.parametrize("registered", ["192.0.2.10:32768", "192.0.2.254:1", "10.0.0.1:65535"])
def test_what_an_ambassador_can_follow(registered: str) -> None:
    assert is_address(registered)


# -- what ambassadors know -------------------------------------------------------------------------------------------

SHOWN = {"registered": ["192.0.2.10:32768"], "malformed": ["/a passed over"], "servers": {"192.0.2.10:32768": "UP"}}


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Traceback (most recent call last):",
        "null",
        "[]",
        "5",
        "{}",
        json.dumps({name: value for name, value in SHOWN.items() if name != "servers"}),
        json.dumps({name: value for name, value in SHOWN.items() if name != "malformed"}),
        json.dumps(SHOWN | {"registered": None}),
        json.dumps(SHOWN | {"registered": [{}]}),
        json.dumps(SHOWN | {"malformed": 1}),
        json.dumps(SHOWN)[:-1],
    ],
)
def test_rubbish_of_an_ambassador_is_told_with_its_machine(
    machines: RecordedMachines, services: Services, answer: str
) -> None:
    machines.on("ambassador.show blog", json.dumps(SHOWN)).on("ambassador.show blog", answer, "coreos-1")

    with pytest.raises(AnswerNotUnderstood, match="the ambassador of blog on coreos-1"):
        services.ambassadors("blog")


@pytest.mark.parametrize("servers", [None, [], "UP"])
def test_servers_that_are_rubbish_are_told_too(machines: RecordedMachines, services: Services, servers: Any) -> None:
    machines.on("ambassador.show blog", json.dumps(SHOWN | {"servers": servers}))

    with pytest.raises(AnswerNotUnderstood, match="the ambassador of blog on coreos-0"):
        services.ambassadors("blog")


def test_ambassador_that_is_not_there_is_not_one_without_servers(
    machines: RecordedMachines, services: Services
) -> None:
    machines.on("ambassador.show", json.dumps(SHOWN)).fails("ambassador.show", 1, "No such container", "coreos-2")

    with pytest.raises(NotAnswering, match="No such container") as raised:
        services.ambassadors("blog")

    assert isinstance(raised.value, PlatformWrong) and raised.value.where == "coreos-2"


def test_ambassador_that_is_not_there_yet_is_waited_for(
    machines: RecordedMachines, services: Services, waiter: Waiter, clock: FakeClock
) -> None:
    looks = [1, 2]

    def show(command: str) -> str:
        if looks:
            raise CommandFailed([command], looks.pop(), "", "No such container", where="coreos-2")
        return json.dumps(SHOWN)

    machines.on("ambassador.show", json.dumps(SHOWN)).on("ambassador.show", show, "coreos-2")

    seen = waiter.until("all are there", lambda: services.ambassadors("blog"), bool, within=10)

    assert sorted(seen) == machines.names and clock.slept == [1, 1]


@pytest.mark.parametrize("status", ["DOWN", "MAINT", "NOLB", "no check", "UP 1/3", "up", ""])
def test_server_that_is_not_healthy(status: str) -> None:
    assert Ambassador(frozenset({"192.0.2.10:1"}), (), {"192.0.2.10:1": status}).healthy == set()


def test_servers_that_are_healthy() -> None:
    servers = {"192.0.2.10:1": "UP", "192.0.2.11:1": "DOWN", "192.0.2.12:1": "UP"}

    assert Ambassador(frozenset(), (), {}).healthy == set()
    assert Ambassador(frozenset({"192.0.2.13:1"}), (), servers).healthy == {"192.0.2.10:1", "192.0.2.12:1"}


def test_ambassador_of_every_machine(machines: RecordedMachines, services: Services) -> None:
    other: dict[str, Any] = {"registered": [], "malformed": [], "servers": {}}
    machines.on("docker exec jpblog-dynamic-amb python3 -m ambassador.show jpblog", json.dumps(SHOWN))
    machines.on("ambassador.show jpblog", json.dumps(other), "coreos-2")

    known = Ambassador(frozenset({"192.0.2.10:32768"}), ("/a passed over",), {"192.0.2.10:32768": "UP"})
    assert services.ambassadors("jpblog") == {
        "coreos-0": known,
        "coreos-1": known,
        "coreos-2": Ambassador(frozenset(), (), {}),
    }


# -- registrations that no sidekick made -----------------------------------------------------------------------------

VALUES = [
    "no JSON",
    "",
    "'",
    "it's",
    '"\'"\'"',
    '{"host": "192.0.2.10", "port": 32768}',
    "[]",
    "$HOME $(id) `id`",
    "a\\nb\\",
    "two\nlines\n",
    "\t a  b ",
    "@/etc/passwd",
    "--fail",
    "a=b&c=d;e|f>g #h",
    "*",
    "~",
    "夜",
]


def arguments(shells: ShellMachines) -> list[str]:
    """What curl was called with, on the way in."""
    assert not list(shells.root.glob("coreos-[12]/arguments"))
    return (shells.core("coreos-0") / "arguments").read_text().split("\0")[:-1]


@pytest.mark.parametrize("value", VALUES)
def test_planted_value_comes_through_the_shell_as_it_stands(shells: ShellMachines, value: str) -> None:
    Services(shells).inject("blog", "planted-0", value, ttl=300)

    argv = arguments(shells)
    assert argv[argv.index("--data-urlencode") + 1] == f"value={value}"
    assert argv[argv.index("-d") + 1] == "ttl=300"
    assert argv[argv.index("-X") + 1] == "PUT"
    assert argv.count("http://127.0.0.1:2379/v2/keys/services/blog/planted-0") == 1 and "--fail" in argv


def test_plant_is_uprooted_by_its_own_name(shells: ShellMachines) -> None:
    Services(shells).undo("jpblog", "planted-3")

    argv = arguments(shells)
    assert argv[argv.index("-X") + 1] == "DELETE"
    assert "--fail" not in argv  # one whose time was over is gone already, and etcd answers 404
    assert [word for word in argv if "://" in word] == ["http://127.0.0.1:2379/v2/keys/services/jpblog/planted-3"]


def test_plant_that_etcd_does_not_take_is_told(shells: ShellMachines) -> None:
    (shells.core("coreos-0") / "status").write_text("22")

    with pytest.raises(CommandFailed) as raised:
        Services(shells).inject("blog", "planted-0", "[]", ttl=300)
    assert (raised.value.status_seen, raised.value.where) == (22, "coreos-0")


def test_etcd_that_is_not_there_uproots_nothing_and_is_told(shells: ShellMachines) -> None:
    for name in shells.names:
        (shells.core(name) / "status").write_text("7")

    with pytest.raises(CommandFailed) as raised:
        Services(shells).undo("blog", "planted-0")
    assert (raised.value.status_seen, raised.value.where) == (7, shells.names[-1])


# -- what containers reach -------------------------------------------------------------------------------------------


def test_containers_are_asked_for_etcd_and_for_all_that_is_closed_to_them(
    machines: RecordedMachines, services: Services
) -> None:
    machines.on("docker exec blog-dynamic-amb python3", lambda command: command.rpartition("'")[2])

    taken = services.taken("blog", machines.names)

    assert set(taken) == set(machines.entry_points)
    assert set(services.taken("blog", ["coreos-1", "of another"])) == {"coreos-1"}
    closed = {f"{address}:{port}" for address in machines.addresses.values() for port in (2379, 2380)}
    assert all(places == {"etcd:2379", "169.254.169.254:80", *closed} for places in taken.values())


def test_ambassador_that_is_not_there_reaches_nothing_and_that_is_no_answer(
    machines: RecordedMachines, services: Services
) -> None:
    def missing(command: str) -> str:
        raise CommandFailed([command], 1, "", "Error: No such container: blog-dynamic-amb", where="coreos-0")

    machines.on("docker exec blog-dynamic-amb python3", missing)

    with pytest.raises(NotAnswering):
        services.taken("blog", machines.names)


def test_what_takes_connections_is_told_from_what_does_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_server(("127.0.0.1", 0)) as closed:
        there, gone = (f"127.0.0.1:{it.getsockname()[1]}" for it in (listening, closed))
        closed.close()
        asked = subprocess.run([sys.executable, "-c", TAKEN, there, gone], capture_output=True, text=True, check=True)

    assert asked.stdout.split() == [there]
