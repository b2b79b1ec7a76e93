"""Evidence: what is collected of every machine, and which layer is named as the lowest that is wrong."""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.drivers.etcd import Etcd
from harness.drivers.fleet import Fleet
from harness.drivers.services import Services, registration
from harness.drivers.units import UnitStates
from harness.errors import EnvironmentFailed, Misconfigured
from harness.record.log import Recorder, Redactor
from harness.runs import evidence
from harness.runs.evidence import QUESTIONS, Finding, collect, diagnose
from harness.seams.ssh import MachineUnreachable
from tests.fakes import FakeRunner
from tests.transcripts.machines import IDS, NAMES, UNITS, RecordedMachines

Events = Callable[..., list[dict[str, Any]]]
SILENT = MachineUnreachable("machine coreos-1 does not answer over SSH: timed out")
CONSOLE = ["docker", "exec", "platform-{run_id}-{machine}", "sh", "-c", "{command}"]


@pytest.fixture
def machines() -> RecordedMachines:
    """The recorded machines, in order: nothing is failed, and each question is answered."""
    machines = RecordedMachines().on("systemctl --failed --no-legend", "")
    return machines.on("sudo sh -c", "asked as root\n")


# -- collect ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def collected(
    machines: RecordedMachines, tmp_path: Path, recorder: Recorder, runner: FakeRunner
) -> Callable[..., dict[str, str]]:
    """Collects; gives MACHINE/QUESTION -> what is in its file."""

    def collect_all(console: list[str] = CONSOLE) -> dict[str, str]:
        folder = tmp_path / "evidence"
        collect(machines, folder, recorder, runner, console, "run-1")
        return {f"{file.parent.name}/{file.stem}": file.read_text() for file in folder.glob("*/*.txt")}

    return collect_all


def test_every_machine_is_asked_every_question(collected: Callable[..., dict[str, str]], events: Events) -> None:
    files = collected()

    assert sorted(files) == sorted(f"{name}/{question}" for name in NAMES for question in QUESTIONS)
    assert {text.splitlines()[-1] for text in files.values()} == {"asked as root"}
    assert len(events("artefact")) == len(files)
    assert all(Path(event["path"]).is_file() for event in events("artefact"))


def test_file_begins_with_the_question(collected: Callable[..., dict[str, str]]) -> None:
    files = collected()

    assert all(files[f"coreos-2/{question}"].startswith(f"$ {QUESTIONS[question]}\n") for question in QUESTIONS)


def test_questions_are_put_to_root_in_one_word(collected: Callable[..., dict[str, str]], machines: Any) -> None:
    collected()

    asked = {command for _, command in machines.asked}
    assert len(asked) == len(QUESTIONS)
    assert all(command.startswith("sudo sh -c '") and command.endswith("' 2>&1") for command in asked)


def test_command_that_fails_is_an_answer(collected: Callable[..., dict[str, str]], machines: RecordedMachines) -> None:
    machines.fails("docker ps", 1, "Cannot connect to the Docker daemon", "coreos-0")

    assert "coreos-0/containers" in collected()


def test_silent_machine_is_asked_at_its_console(
    collected: Callable[..., dict[str, str]], machines: RecordedMachines, runner: FakeRunner
) -> None:
    machines.on("sudo sh -c", SILENT, "coreos-1")
    runner.on("docker exec platform-run-1-coreos-1 sh -c", stdout="from within\n", status=1)

    files = collected()

    assert "does not answer over SSH: timed out\n\nfrom the console:\nfrom within" in files["coreos-1/etcd"]
    assert {call.argv[:5] for call in runner.details} == {
        ("docker", "exec", "platform-run-1-coreos-1", "sh", "-c"),
    }
    assert {call.argv[5] for call in runner.details} == set(QUESTIONS.values())
    assert [name for name, _ in machines.asked].count("coreos-1") == 1
    assert files["coreos-0/etcd"].endswith("asked as root\n") and files["coreos-2/etcd"].endswith("asked as root\n")


def test_machine_that_falls_silent_is_asked_over_ssh_once_more_and_then_at_its_console_only(
    collected: Callable[..., dict[str, str]], machines: RecordedMachines, runner: FakeRunner
) -> None:
    """Each question would wait for its limit again, at the end of a run that failed."""
    silent_at = list(QUESTIONS)[2]
    machines.on(f"sudo sh -c {shlex.quote(QUESTIONS[silent_at])}", SILENT, "coreos-1")
    runner.on("docker exec", stdout="from within\n")

    files = collected()

    assert len([name for name, _ in machines.asked if name == "coreos-1"]) == 3
    assert len(runner.calls) == len(QUESTIONS) - 2
    over_ssh = {question for question in QUESTIONS if files[f"coreos-1/{question}"].endswith("asked as root\n")}
    assert over_ssh == set(list(QUESTIONS)[:2])
    assert all(str(SILENT) in files[f"coreos-1/{question}"] for question in set(QUESTIONS) - over_ssh)
    assert len([name for name, _ in machines.asked if name == "coreos-2"]) == len(QUESTIONS)


@pytest.mark.parametrize("error", [Misconfigured("docker is not installed"), EnvironmentFailed("no engine")])
def test_console_that_fails_too_is_told(
    collected: Callable[..., dict[str, str]], machines: RecordedMachines, runner: FakeRunner, error: Exception
) -> None:
    machines.on("sudo sh -c", SILENT, "coreos-1")
    runner.on("docker exec", raises=error)

    files = collected()

    assert files["coreos-1/system"].endswith(f"from the console:\n{error}")
    assert len(files) == len(NAMES) * len(QUESTIONS)


def test_target_without_a_console(
    collected: Callable[..., dict[str, str]], machines: RecordedMachines, runner: FakeRunner
) -> None:
    machines.on("sudo sh -c", SILENT)

    files = collected(console=[])

    assert {text.splitlines()[-1] for text in files.values()} == {"this target has none"}
    assert runner.calls == []


def test_secrets_are_not_collected(
    collected: Callable[..., dict[str, str]], machines: RecordedMachines, redact: Redactor, runner: FakeRunner
) -> None:
    redact.add("host key", "very-secret-words")
    machines.on("sudo sh -c", "very-secret-words on disk\n").on("sudo sh -c", SILENT, "coreos-1")
    runner.on("docker exec", stdout="very-secret-words at the console\n")

    files = collected()

    assert not [name for name, text in files.items() if "very-secret-words" in text]
    assert "[host key] on disk" in files["coreos-0/boot"] and "[host key] at the console" in files["coreos-1/boot"]


def test_machines_are_asked_side_by_side(collected: Callable[..., dict[str, str]], machines: RecordedMachines) -> None:
    together = threading.Barrier(len(NAMES))

    def meet(command: str) -> str:
        together.wait(5)
        return ""

    machines.on("user-data", meet)

    assert len(collected()) == len(NAMES) * len(QUESTIONS)


# -- diagnose --------------------------------------------------------------------------------------------------------


def fail_unit(machines: RecordedMachines, name: str, active: str = "failed", sub: str = "failed") -> None:
    shown = machines.recorded[f"systemctl show {name}"]
    shown["coreos-0"] = shown["coreos-0"].replace("=active", f"={active}").replace("=running", f"={sub}")


def change_unit(machines: RecordedMachines, name: str, **fields: Any) -> None:
    def change(answer: Any) -> None:
        next(item for item in answer["units"] if item["name"] == name).update(fields)

    machines.change("fleet/v1/units", change)


def forget_unit(machines: RecordedMachines, name: str) -> None:
    def forget(answer: Any) -> None:
        for key, items in answer.items():
            answer[key] = [item for item in items if item["name"] != name]

    machines.change("fleet/v1/units", forget).change("fleet/v1/state", forget)


def layers(findings: list[Finding]) -> set[tuple[str, str]]:
    return {(finding.layer, finding.machine) for finding in findings}


def cluster_of(machines: RecordedMachines) -> Any:
    fleet = Fleet(machines)
    units, services = UnitStates(fleet, machines), Services(machines)
    return SimpleNamespace(machines=machines, etcd=Etcd(machines), fleet=fleet, units=units, services=services)


def test_all_is_well(machines: RecordedMachines) -> None:
    assert diagnose(cluster_of(machines), UNITS) == []


def test_machine_that_is_unreachable(machines: RecordedMachines) -> None:
    machines.on("", SILENT, "coreos-1")

    assert diagnose(cluster_of(machines), UNITS) == [
        Finding("provision", "coreos-1", str(SILENT), f"ssh core@{machines.addresses['coreos-1']}")
    ]


def test_machine_whose_etcd_is_unhealthy(machines: RecordedMachines) -> None:
    machines.on("2379/health", "\n", "coreos-1")

    findings = diagnose(cluster_of(machines), UNITS)

    assert ("bootstrap", "coreos-1") in layers(findings)
    assert findings[0].finding == "etcd: not healthy"


def test_machines_beside_one_whose_etcd_is_unhealthy_are_not_named(machines: RecordedMachines) -> None:
    machines.on("2379/health", "\n", "coreos-1")

    assert layers(diagnose(cluster_of(machines), UNITS)) == {("bootstrap", "coreos-1")}


def test_machine_that_fleet_does_not_list(machines: RecordedMachines) -> None:
    machines.change(
        "fleet/v1/machines",
        lambda answer: answer.update(machines=[it for it in answer["machines"] if it["id"] != IDS["coreos-2"]]),
    )

    assert diagnose(cluster_of(machines), UNITS) == [
        Finding("bootstrap", "coreos-2", "fleet does not list it", "fleetctl list-machines")
    ]


def test_fleet_that_does_not_answer(machines: RecordedMachines) -> None:
    machines.fails("fleet/v1", 22, "curl: (22) The requested URL returned error: 503")

    findings = diagnose(cluster_of(machines), UNITS)

    assert layers(findings) == {("bootstrap", name) for name in NAMES}
    assert {finding.finding for finding in findings} == {"fleet does not list it"}


def test_service_of_the_machine_that_is_failed(machines: RecordedMachines) -> None:
    machines.on("systemctl --failed --no-legend", "filter.service\nblog.service\n", "coreos-1")

    # blog.service is fleet's, and judged by its own layer
    assert diagnose(cluster_of(machines), UNITS) == [
        Finding("bootstrap", "coreos-1", "filter.service is failed", "systemctl status filter.service")
    ]


def test_unit_that_is_on_no_machine(machines: RecordedMachines) -> None:
    change_unit(machines, "blog.service", machineID="", currentState="inactive")

    assert diagnose(cluster_of(machines), UNITS) == [
        Finding("schedule", "cluster", "blog.service: on no machine (1 would be allowed)", "fleetctl list-unit-files")
    ]


def test_unit_that_is_where_it_must_not_be(machines: RecordedMachines) -> None:
    change_unit(machines, "entry.service", machineID=IDS["coreos-2"])

    (finding,) = diagnose(cluster_of(machines), UNITS)

    assert finding.layer == "schedule" and "forbids this machine" in finding.finding


@pytest.mark.parametrize(("active", "sub"), [("failed", "failed"), ("activating", "auto-restart")])
def test_unit_that_does_not_run(machines: RecordedMachines, active: str, sub: str) -> None:
    fail_unit(machines, "blog.service", active, sub)

    assert diagnose(cluster_of(machines), UNITS) == [
        Finding(
            "unit",
            "coreos-0",
            f"blog.service: {active}/{sub} pid 409 restarts 0 on coreos-0",
            "fleetctl status blog.service",
        )
    ]


AMBASSADOR = "blog-dynamic-amb.service"
RUNS = "10.215.249.10:49153"


def show(registered: list[str], servers: dict[str, str]) -> str:
    return json.dumps({"registered": registered, "malformed": [], "servers": servers})


@pytest.fixture
def discovery(machines: RecordedMachines) -> RecordedMachines:
    """A blog that runs at one address, is registered there, and is a healthy server of every ambassador."""

    def add(answer: Any) -> None:
        (entry,) = (it for it in answer["units"] if it["name"] == "entry.service")
        options = [it for it in entry["options"] if it["section"] != "X-Fleet"]
        options.append({"section": "X-Fleet", "name": "Global", "value": "true"})
        answer["units"].append({**entry, "name": AMBASSADOR, "machineID": "", "options": options})

    def publish(answer: Any) -> None:
        (entry,) = (it for it in answer["states"] if it["name"] == "entry.service")
        answer["states"] += [{**entry, "name": AMBASSADOR, "machineID": machine} for machine in IDS.values()]

    machines.change("fleet/v1/units", add).change("fleet/v1/state", publish)
    running = machines.recorded["systemctl show entry.service"]["coreos-0"].replace("entry.service", AMBASSADOR)
    machines.recorded[f"systemctl show {AMBASSADOR}"] = dict.fromkeys(NAMES, running)
    machines.on("docker ps", "").on("docker ps", f"{RUNS}\n", "coreos-0")
    register(machines, RUNS)
    return machines.on("ambassador.show blog", show([RUNS], {RUNS: "UP"}))


def register(machines: RecordedMachines, *addresses: str) -> None:
    nodes = [
        {
            "key": f"/services/blog/{number}",
            "value": registration(it),
        }
        for number, it in enumerate(addresses)
    ]
    machines.on("v2/keys/services/blog", json.dumps({"node": {"key": "/services/blog", "nodes": nodes}}))


WITH_AMBASSADOR = [*UNITS, AMBASSADOR]


def test_service_that_is_found_is_well(discovery: RecordedMachines) -> None:
    assert diagnose(cluster_of(discovery), WITH_AMBASSADOR) == []


def test_service_that_is_not_registered(discovery: RecordedMachines) -> None:
    discovery.on("v2/keys/services/blog", '{"errorCode":100,"message":"Key not found"}')
    discovery.on("ambassador.show blog", show([], {}))

    first, *others = diagnose(cluster_of(discovery), WITH_AMBASSADOR)

    assert first == Finding(
        "discovery",
        "cluster",
        f"blog runs at {RUNS}, registered is nothing",
        "curl http://127.0.0.1:2379/v2/keys/services/blog?recursive=true",
    )
    assert [(it.machine, it.finding) for it in others] == [
        (name, "the ambassador of blog has no servers") for name in NAMES
    ]


def test_service_that_is_registered_where_it_does_not_run(discovery: RecordedMachines) -> None:
    register(discovery, RUNS, "10.215.249.11:49160")

    (finding,) = diagnose(cluster_of(discovery), WITH_AMBASSADOR)

    assert (finding.layer, finding.machine) == ("discovery", "cluster")
    assert finding.finding == f"blog runs at {RUNS}, registered is {RUNS}, 10.215.249.11:49160"


def test_service_that_runs_nowhere_and_is_registered(discovery: RecordedMachines) -> None:
    discovery.on("docker ps", "")

    assert f"blog runs at no address, registered is {RUNS}" in [
        it.finding for it in diagnose(cluster_of(discovery), WITH_AMBASSADOR)
    ]


@pytest.mark.parametrize(
    "servers", [{RUNS: "DOWN"}, {"10.215.249.11:49160": "UP"}, {RUNS: "UP", "10.215.249.11:49160": "UP"}]
)
def test_ambassador_whose_servers_are_others(discovery: RecordedMachines, servers: dict[str, str]) -> None:
    discovery.on("ambassador.show blog", show([RUNS], servers), "coreos-2")

    assert diagnose(cluster_of(discovery), WITH_AMBASSADOR) == [
        Finding(
            "discovery",
            "coreos-2",
            f"the ambassador of blog has {servers}",
            "docker exec blog-dynamic-amb python3 -m ambassador.show blog",
        )
    ]


def test_registration_left_behind_that_the_ambassadors_pass_over_is_told_of_the_cluster_only(
    discovery: RecordedMachines,
) -> None:
    gone = "10.215.249.99:49153"
    register(discovery, RUNS, gone)
    discovery.on("ambassador.show blog", show([RUNS, gone], {RUNS: "UP", gone: "DOWN"}))

    assert layers(diagnose(cluster_of(discovery), WITH_AMBASSADOR)) == {("discovery", "cluster")}


@pytest.mark.parametrize("answer", ["", "Traceback (most recent call last):", "[]", '{"servers": {}}'])
def test_ambassador_that_says_something_else_is_what_is_wrong(discovery: RecordedMachines, answer: str) -> None:
    discovery.on("ambassador.show blog", answer, "coreos-1")

    (finding,) = diagnose(cluster_of(discovery), WITH_AMBASSADOR)

    assert finding.layer == "discovery" and "the ambassador of blog on coreos-1" in finding.finding


def test_ambassador_that_cannot_be_asked_is_what_is_wrong(discovery: RecordedMachines) -> None:
    discovery.fails("ambassador.show blog", 1, "Error response from daemon: No such container", "coreos-1")

    (finding,) = diagnose(cluster_of(discovery), WITH_AMBASSADOR)

    assert (finding.layer, finding.machine) == ("discovery", "coreos-1")
    assert "No such container" in finding.finding


def test_service_whose_ambassador_was_never_loaded_is_not_asked_for(machines: RecordedMachines) -> None:
    assert diagnose(cluster_of(machines), WITH_AMBASSADOR) == []
    assert not [command for _, command in machines.asked if "services/" in command or "docker" in command]


def test_unit_that_does_not_run_is_named_before_what_is_registered(discovery: RecordedMachines) -> None:
    fail_unit(discovery, "blog.service")
    discovery.on("docker ps", "")

    assert {layer for layer, _ in layers(diagnose(cluster_of(discovery), WITH_AMBASSADOR))} == {"unit"}


def test_unit_that_was_never_loaded_is_no_unit_that_is_wrong(machines: RecordedMachines) -> None:
    forget_unit(machines, "blog.service")

    assert diagnose(cluster_of(machines), UNITS) == []


def test_lowest_layer_alone_is_named(machines: RecordedMachines) -> None:
    fail_unit(machines, "blog.service")
    assert {layer for layer, _ in layers(diagnose(cluster_of(machines), UNITS))} == {"unit"}

    change_unit(machines, "entry.service", currentState="loaded")
    assert {layer for layer, _ in layers(diagnose(cluster_of(machines), UNITS))} == {"schedule"}

    machines.on("2379/health", "\n", "coreos-1")
    assert {layer for layer, _ in layers(diagnose(cluster_of(machines), UNITS))} == {"bootstrap"}

    machines.on("", SILENT, "coreos-1")
    assert {layer for layer, _ in layers(diagnose(cluster_of(machines), UNITS))} == {"provision"}


def test_every_finding_has_something_to_paste(machines: RecordedMachines) -> None:
    machines.on("2379/health", "\n", "coreos-1").on("systemctl --failed --no-legend", "ssh.service\n")

    findings = diagnose(cluster_of(machines), UNITS)

    assert findings and all(finding.paste for finding in findings)


# -- record ----------------------------------------------------------------------------------------------------------


def test_findings_are_recorded_with_the_lowest_layer(recorder: Recorder, events: Events) -> None:
    evidence.record(recorder, [Finding("unit", "coreos-0", "blog.service: failed", "fleetctl status blog.service")])

    (event,) = events("diagnosis")
    assert event["layer"] == "unit" and event["findings"][0]["machine"] == "coreos-0"


def test_nothing_found_is_not_recorded(recorder: Recorder, events: Events) -> None:
    evidence.record(recorder, [])

    assert events("diagnosis") == []


def test_a_layer_that_cannot_be_asked_is_what_is_wrong(machines: RecordedMachines) -> None:
    machines.fails("/fleet/v1/units", 28, "curl: (28) Operation timed out after 10001 milliseconds")

    (finding,) = diagnose(cluster_of(machines), UNITS)

    assert finding.layer == "bootstrap"
    assert "Operation timed out" in finding.finding
