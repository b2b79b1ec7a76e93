"""The life of a run: what it makes for itself, and that all of it goes again, whatever fails on the way."""

from __future__ import annotations

import contextlib
import http.server
import io
import ipaddress
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest

from harness.cache import Cache
from harness.engine import Engine
from harness.errors import CommandFailed, EnvironmentFailed, ExitStatus, HarnessError, Misconfigured
from harness.ground import SUBNETS, free_subnet, make_ground
from harness.record import Recorder, Redactor, fold, read_events
from harness.run import (
    MACHINES_AT_MOST,
    OPERATORS_FILES,
    Keys,
    Run,
    add_secrets,
    new_run_id,
    targets,
)
from harness.shell import OperatorShell
from harness.toolchain import Toolchain
from harness.verdict import judge
from harness.wait import Waiter
from tests.fakes import FakeClock, FakeRunner

ROOT = Path(__file__).resolve().parent.parent
HEADER = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
needs_agent = pytest.mark.skipif(not shutil.which("ssh-agent"), reason="no ssh-agent on this machine")


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
        free_subnet(routes("0.0.0.0/0", "192.168.1.0/24", *taken), random.Random(0))


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


# -- names and keys ------------------------------------------------------------------------------------------------


def test_a_run_id_fits_the_names_of_all_that_is_made() -> None:
    found = {new_run_id() for _ in range(50)}

    assert len(found) > 45
    for run_id in found:
        assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{4}", run_id)
        # Docker's rule for names, and what a hostname and the path of a socket may be long
        assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", f"platform-{run_id}-coreos-99")
        assert len(f"platform-{run_id}-coreos-99") <= 63
        assert len(f"/tmp/platform-{run_id}-12345678/agent") < 108


def test_targets_are_the_folders_with_a_target_file(tmp_path: Path) -> None:
    for name in ("infra/local/target.json", "infra/cloud/target.json", "infra/image/Dockerfile", "infra/target.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    assert targets(tmp_path) == ["cloud", "local"]
    assert "local" in targets(ROOT)


def test_a_key_is_one_that_paramiko_takes() -> None:
    keys = Keys.generate("operator@x")
    key = paramiko.Ed25519Key.from_private_key(io.StringIO(keys.private))

    assert keys.public == f"ssh-ed25519 {key.get_base64()} operator@x\n"


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="no ssh-keygen on this machine")
def test_a_key_is_one_that_openssh_takes(tmp_path: Path) -> None:
    keys = Keys.generate("operator@x")
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_text(keys.private)

    answer = subprocess.run(["ssh-keygen", "-y", "-f", file], capture_output=True, text=True, check=True).stdout
    assert answer.split()[:2] == keys.public.split()[:2]


def test_no_two_keys_are_the_same() -> None:
    assert len({Keys.generate("x").private for _ in range(10)}) == 10


# -- a run of its own ----------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Docker client that must not be called, a temporary folder of the test's own, no agent of the person's."""
    client = tmp_path / "bin" / "docker"
    client.parent.mkdir()
    client.write_text("#!/bin/sh\nexit 1\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{client.parent}:{os.environ['PATH']}")
    # the path of a socket has 108 bytes at most: tmp_path is too long for one
    folder = tempfile.mkdtemp(prefix="t-", dir="/tmp")
    monkeypatch.setattr(tempfile, "tempdir", folder)
    monkeypatch.setenv("SSH_AUTH_SOCK", "/the/persons/own")
    for name in ("DISCOVERY_SERVICE", "IMAGE_REGISTRY", "MACHINE_IMAGE"):
        monkeypatch.delenv(name, raising=False)
    yield
    shutil.rmtree(folder)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout of the least that a run copies."""
    root = tmp_path / "root"
    for name in OPERATORS_FILES:
        if "." in name:
            (root / name).touch()
        else:
            (root / name).mkdir(parents=True)
    for name in ("infra/local/target.json", "infra/local/terraform.tfvars", "infra/local/.terraform/x", "bin/platform"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("{}")
    return root


@pytest.fixture
def run(root: Path, runner: FakeRunner) -> Iterator[Run]:
    run = Run(root, "20260801-120000-ab12", "local")
    run.process = runner  # type: ignore[assignment]
    for listing in ("docker ps", "docker network ls", "docker volume ls"):
        runner.on(listing)
    yield run
    if run._agent is not None and isinstance(run._agent, subprocess.Popen):
        run._agent.kill()
        run._agent.wait()
    run.recorder.close()


@pytest.fixture
def toolchain(root: Path, tmp_path: Path, recorder: Recorder, runner: FakeRunner) -> Toolchain:
    engine = Engine(runner, recorder, Waiter(recorder))
    toolchain = Toolchain(root, Cache(tmp_path / "cache"), runner, recorder, engine)
    toolchain.path = [Path("/opt/tools")]
    toolchain.machine_image = "platform-machine:abc"
    return toolchain


def recorded(run: Run, *kinds: str) -> list[dict[str, Any]]:
    return [event for event in read_events(run.recorder.path) if event["kind"] in kinds]


class FakeAgent:
    """An ssh-agent of the run, that ends when it is asked, or does not."""

    def __init__(self, raises: BaseException | None = None) -> None:
        self.raises = raises
        self.signals: list[object] = []

    def send_signal(self, number: int) -> None:
        self.signals.append(number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.signals.append("kill")
        self.raises = None

    def wait(self, timeout: float | None = None) -> int:
        if self.raises is not None:
            raise self.raises
        return 0


@pytest.fixture
def standing(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose machines, ground, agent, secrets and folders are all there."""
    for folder in (run.target_folder, run.ground_folder):
        folder.mkdir(parents=True)
        (folder / "terraform.tfstate").write_text("{}")
        (folder / "run.auto.tfvars.json").write_text("secret")
    run.shell_state.write_text("{}")
    run._agent = FakeAgent()  # type: ignore[assignment]
    run._sockets = Path(tempfile.mkdtemp(prefix=f"platform-{run.run_id}-"))
    return run


# -- teardown ------------------------------------------------------------------------------------------------------

TASKS = ["destroy machines", "destroy ground", "end ssh-agent", "look for leaks"]


def gone(run: Run) -> bool:
    assert run._sockets is not None
    left = (run.operators, run.ground_folder, run.shell_state, run._sockets)
    return [path for path in left if path.exists()] == []


def test_a_teardown_goes_from_the_machines_down(standing: Run, runner: FakeRunner) -> None:
    runner.on("terraform destroy")
    standing.tear_down({"PATH": "/opt/tools"})

    assert [event["task"] for event in recorded(standing, "task.started")][:4] == TASKS
    assert {event["outcome"] for event in recorded(standing, "task.ended")} == {"done"}
    machines, ground = (call for call in runner.details if "destroy" in call.argv)
    assert (machines.cwd, ground.cwd) == (standing.target_folder, standing.ground_folder)
    assert machines.env == ground.env == {"PATH": "/opt/tools"}
    assert [call.split()[:2] for call in runner.calls][:3] == [
        ["terraform", "destroy"],
        ["terraform", "destroy"],
        ["docker", "ps"],
    ]
    assert gone(standing)
    assert recorded(standing, "leak") == []


UNEXPECTED = [
    CommandFailed(["terraform", "destroy"], 1, "", "state is locked"),
    EnvironmentFailed("the engine is gone"),
    OSError(28, "No space left on device"),
    subprocess.TimeoutExpired("ssh-agent", 5),
    ValueError("not what was thought"),
]


@pytest.mark.parametrize("error", UNEXPECTED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("task", TASKS)
def test_what_fails_in_a_teardown_stops_nothing_after_it(
    standing: Run, runner: FakeRunner, task: str, error: Exception
) -> None:
    runner.on("terraform destroy")
    if task == "destroy machines":
        runner.on("terraform destroy", raises=error, does=lambda: runner.on("terraform destroy"))
    elif task == "destroy ground":
        runner.on("terraform destroy", does=lambda: runner.on("terraform destroy", raises=error))
    elif task == "end ssh-agent":
        standing._agent = FakeAgent(error)  # type: ignore[assignment]
    else:
        runner.on("docker ps", raises=error)

    # an error nobody thought of may come out: after the rest was done
    with contextlib.suppress(type(error)), contextlib.suppress(HarnessError):
        standing.tear_down({})

    assert [event["task"] for event in recorded(standing, "task.started")][:4] == TASKS
    assert [call.split()[0] for call in runner.calls][:3] == ["terraform", "terraform", "docker"]
    assert gone(standing)


def test_a_failure_of_the_teardown_is_recorded_with_its_task(standing: Run, runner: FakeRunner) -> None:
    runner.on("terraform destroy", status=1, stderr="state is locked")
    with contextlib.suppress(HarnessError):
        standing.tear_down({})

    ended = {event["task"]: event for event in recorded(standing, "task.ended")}
    assert ended["destroy machines"]["outcome"] == ended["destroy ground"]["outcome"] == "failed"
    assert "state is locked" in ended["destroy machines"]["error"]
    assert ended["end ssh-agent"]["outcome"] == ended["look for leaks"]["outcome"] == "done"


def test_a_run_whose_leaks_nobody_could_look_for_is_not_verified(standing: Run, runner: FakeRunner) -> None:
    standing.recorder.emit(
        "scenario.planned", id="s", feature="f", feature_title="f", title="s", line=1, tags=[], steps=[]
    )
    standing.recorder.emit("scenario.started", id="s")
    standing.recorder.emit("scenario.ended", id="s", outcome="passed", reason="", seconds=1)
    runner.on("terraform destroy").on("docker", status=1, stderr="Cannot connect to the Docker daemon")

    with contextlib.suppress(HarnessError), standing.stage("teardown"):
        standing.tear_down({})

    assert judge(fold(read_events(standing.recorder.path))).status is ExitStatus.ENVIRONMENT_FAILED


def test_an_agent_that_ignores_being_asked_is_killed(standing: Run, runner: FakeRunner) -> None:
    agent = FakeAgent(subprocess.TimeoutExpired("ssh-agent", 5))
    standing._agent = agent  # type: ignore[assignment]
    runner.on("terraform destroy")
    with contextlib.suppress(subprocess.TimeoutExpired):
        standing.tear_down({})

    assert agent.signals[-1] == "kill"


def test_what_was_never_made_is_not_destroyed(run: Run, runner: FakeRunner) -> None:
    run.tear_down({})

    assert [call.split()[0] for call in runner.calls] == ["docker"] * 3
    assert {event["outcome"] for event in recorded(run, "task.ended")} == {"done"}


def test_a_teardown_can_be_done_again(standing: Run, runner: FakeRunner) -> None:
    runner.on("terraform destroy")
    standing.tear_down({})
    standing.tear_down({})

    assert gone(standing)


# -- stages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "outcome", "status"),
    [
        (EnvironmentFailed("no disk"), "failed", 6),
        (Misconfigured("no root"), "failed", 4),
        (CommandFailed(["x"], 1, "", ""), "failed", 1),
        (ValueError("what"), "failed", 3),
        (KeyboardInterrupt(), "interrupted", 3),
    ],
)
def test_a_stage_records_how_it_ended(run: Run, error: BaseException, outcome: str, status: int) -> None:
    with pytest.raises(type(error)), run.stage("setup"):
        raise error

    (ended,) = recorded(run, "stage.ended")
    assert (ended["stage"], ended["outcome"], ended["status"]) == ("setup", outcome, status)
    if isinstance(error, HarnessError):
        assert ended["error"] == str(error)


def test_a_run_folder_that_is_there_already_is_the_environments_failure(run: Run, root: Path) -> None:
    with pytest.raises(EnvironmentFailed, match="cannot be made: File exists"):
        Run(root, run.run_id, "local")


# -- the operator's shell ------------------------------------------------------------------------------------------


def test_a_target_that_is_not_there_is_named_before_anything_starts(root: Path, toolchain: Toolchain) -> None:
    run = Run(root, "20260801-120000-ab12", "cloud")
    with pytest.raises(Misconfigured, match="there is no target cloud: targets are local"):
        run.open_shell(toolchain)

    assert run._agent is None
    run.recorder.close()


def test_an_agent_that_does_not_listen_is_not_the_platforms_fault(
    run: Run, toolchain: Toolchain, tmp_path: Path
) -> None:
    (tmp_path / "bin/ssh-agent").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin/ssh-agent").chmod(0o755)
    run.waiter = Waiter(run.recorder, FakeClock())

    with pytest.raises(HarnessError) as failed:
        run.open_shell(toolchain)
    assert failed.value.status is ExitStatus.ENVIRONMENT_FAILED


def agent_that_listens_after(seconds: float, tmp_path: Path) -> None:
    """Puts another ssh-agent on PATH: its socket is there at once, and takes connections later."""
    program = tmp_path / "bin/ssh-agent"
    program.write_text(
        f"#!{sys.executable}\nimport socket, sys, time\nagent = socket.socket(socket.AF_UNIX)\n"
        f"agent.bind(sys.argv[3])\ntime.sleep({seconds})\nagent.listen()\ntime.sleep(30)\n"
    )
    program.chmod(0o755)


def test_an_agent_whose_socket_is_there_but_does_not_listen_yet_is_waited_for(
    run: Run, toolchain: Toolchain, runner: FakeRunner, tmp_path: Path
) -> None:
    agent_that_listens_after(0.3, tmp_path)
    runner.on("ssh-add -q -")
    shell = run.open_shell(toolchain)

    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(shell.env["SSH_AUTH_SOCK"])


def test_an_agent_that_takes_no_key_is_not_the_platforms_fault(
    run: Run, toolchain: Toolchain, runner: FakeRunner, tmp_path: Path
) -> None:
    agent_that_listens_after(0, tmp_path)
    runner.on("ssh-add", status=1, stderr="agent refused operation")

    with pytest.raises(HarnessError) as failed:
        run.open_shell(toolchain)
    assert failed.value.status is ExitStatus.ENVIRONMENT_FAILED


def test_a_machine_without_ssh_agent_is_told_so(
    run: Run, toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(HarnessError, match="ssh-agent"):
        run.open_shell(toolchain)


@pytest.fixture
def shell(run: Run, toolchain: Toolchain, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch) -> OperatorShell:
    monkeypatch.setenv("TF_LOG", "trace")
    monkeypatch.setenv("FLEETCTL_ENDPOINT", "http://elsewhere")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-x")
    monkeypatch.setenv("OF_THE_PERSON", "kept")
    runner.on("ssh-add -q -")
    return run.open_shell(toolchain)


@needs_agent
def test_the_operators_folder_is_a_copy_without_state(shell: OperatorShell, run: Run, root: Path) -> None:
    assert shell.cwd == run.operators
    assert sorted(path.name for path in run.operators.iterdir()) == sorted(OPERATORS_FILES)
    assert sorted(path.name for path in run.target_folder.iterdir()) == ["run.auto.tfvars.json", "target.json"]
    assert sorted(path.name for path in (root / "infra/local").iterdir()) == [
        ".terraform",
        "target.json",
        "terraform.tfvars",
    ]


@needs_agent
def test_nothing_steers_the_operators_tools_behind_the_runbook(shell: OperatorShell, run: Run) -> None:
    environment = shell.env

    assert {"TF_LOG", "FLEETCTL_ENDPOINT", "PYTEST_ADDOPTS"} & set(environment) == set()
    assert environment["OF_THE_PERSON"] == "kept"
    assert environment["PATH"].startswith("/opt/tools:")
    assert (environment["TARGET"], environment["PLATFORM_RUN"]) == ("local", run.run_id)
    assert environment["SSH_AUTH_SOCK"] == os.environ["SSH_AUTH_SOCK"] != "/the/persons/own"


@needs_agent
def test_the_agent_is_the_runs_own_and_gets_the_operators_key(
    shell: OperatorShell, run: Run, runner: FakeRunner
) -> None:
    (call,) = (call for call in runner.details if call.argv[0] == "ssh-add")

    assert call.stdin is not None
    assert call.env is not None
    key = paramiko.Ed25519Key.from_private_key(io.StringIO(call.stdin))
    handed_over = json.loads((run.target_folder / "run.auto.tfvars.json").read_text())
    assert handed_over["ssh_public_key"].split()[1] == key.get_base64()
    listed = subprocess.run(["ssh-add", "-l"], env=dict(call.env), capture_output=True, text=True)
    assert listed.stdout == "The agent has no identities.\n", "the fake added none, and the agent answers"
    run._end_agent()
    assert not Path(call.env["SSH_AUTH_SOCK"]).parent.exists()


@needs_agent
def test_private_keys_are_in_one_file_of_the_owner_and_never_in_the_record(shell: OperatorShell, run: Run) -> None:
    file = run.target_folder / "run.auto.tfvars.json"
    keys = json.loads(file.read_text())["ssh_host_keys"]

    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(keys) == sorted(f"coreos-{index}" for index in range(MACHINES_AT_MOST))
    run.recorder.emit("note", text=keys["coreos-7"]["private"])
    assert keys["coreos-7"]["private"].splitlines()[2] not in run.recorder.path.read_text()


@needs_agent
def test_another_process_of_the_run_knows_its_secrets(shell: OperatorShell, run: Run) -> None:
    redact = Redactor()
    add_secrets(redact, run.folder)
    keys = json.loads((run.target_folder / "run.auto.tfvars.json").read_text())["ssh_host_keys"]
    line = keys["coreos-99"]["private"].splitlines()[1]

    assert redact(f"x {line} y") == "x [ssh host key] y"


# -- the ground ----------------------------------------------------------------------------------------------------


@pytest.fixture
def given_shell(run: Run, runner: FakeRunner) -> OperatorShell:
    run.target_folder.mkdir(parents=True)
    return OperatorShell.open(runner, run.shell_state, run.operators, {"PATH": "/opt/tools"})


@pytest.fixture
def ground(root: Path) -> Path:
    module = root / "infra/ground/local"
    module.mkdir(parents=True)
    (module / "main.tf").touch()
    return module


@pytest.fixture
def service() -> Iterator[str]:
    """A discovery service and an image registry, as far as their health goes."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path in ("/health", "/v2/") else 404)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def outputs(address: str) -> str:
    values = {"discovery-service": f"http://{address}/v2/keys/discovery", "image-registry": address}
    return json.dumps({name: {"value": value} for name, value in values.items()})


@pytest.mark.parametrize("command", ["init", "apply", "output"])
def test_a_ground_that_cannot_be_made_is_not_the_platforms_fault(
    run: Run, toolchain: Toolchain, runner: FakeRunner, given_shell: OperatorShell, ground: Path, command: str
) -> None:
    runner.on("terraform").on(f"terraform {command}", status=1, stderr="Cannot connect to the Docker daemon")

    with pytest.raises(HarnessError, match="Cannot connect to the Docker daemon") as failed:
        make_ground(run, toolchain, given_shell)
    assert failed.value.status is ExitStatus.ENVIRONMENT_FAILED


def test_a_subnet_that_another_run_took_is_given_up_for_the_next(
    run: Run, toolchain: Toolchain, runner: FakeRunner, given_shell: OperatorShell, ground: Path, service: str
) -> None:
    tried = []

    def taken() -> None:
        tried.append(json.loads((run.ground_folder / "run.auto.tfvars.json").read_text())["subnet"])
        if len(tried) == 3:
            runner.on("terraform apply")

    runner.on("terraform init").on("terraform output", outputs(service))
    runner.on("terraform apply", status=1, stderr="Pool overlaps with other one on this address space", does=taken)
    make_ground(run, toolchain, given_shell)

    assert len(tried) == 3
    assert len([call for call in runner.calls if call.startswith("terraform apply")]) == 4


def test_a_machine_whose_subnets_are_all_taken_is_the_environments_failure(
    run: Run, toolchain: Toolchain, runner: FakeRunner, given_shell: OperatorShell, ground: Path
) -> None:
    runner.on("terraform init").on("terraform apply", status=1, stderr="Pool overlaps with other one")

    with pytest.raises(EnvironmentFailed, match="the ground could not be made"):
        make_ground(run, toolchain, given_shell)
    assert len([call for call in runner.calls if call.startswith("terraform apply")]) == 5


def test_a_ground_that_does_not_answer_is_the_environments_failure(
    run: Run, toolchain: Toolchain, runner: FakeRunner, given_shell: OperatorShell, ground: Path
) -> None:
    runner.on("terraform").on("terraform output", outputs("127.0.0.1:9"))
    run.waiter = Waiter(run.recorder, FakeClock(), every=10)

    with pytest.raises(EnvironmentFailed, match=r"the ground does not answer .*ConnectionError"):
        make_ground(run, toolchain, given_shell)


def test_a_ground_that_answers_is_handed_to_the_operator_and_the_target(
    run: Run, toolchain: Toolchain, runner: FakeRunner, given_shell: OperatorShell, ground: Path, service: str
) -> None:
    runner.on("terraform").on("terraform output", outputs(service))
    make_ground(run, toolchain, given_shell)

    assert given_shell.env["DISCOVERY_SERVICE"] == f"http://{service}/v2/keys/discovery"
    handed_over = json.loads((run.target_folder / "run.auto.tfvars.json").read_text())
    assert handed_over == {"image_registry": service, "machine_image": "platform-machine:abc"}
    variables = json.loads((run.ground_folder / "run.auto.tfvars.json").read_text())
    assert variables["run_id"] == run.run_id
    assert ipaddress.IPv4Network(variables["subnet"]).subnet_of(SUBNETS)


@pytest.mark.parametrize("missing", ["DISCOVERY_SERVICE", "IMAGE_REGISTRY", "MACHINE_IMAGE"])
def test_a_target_without_a_ground_must_be_given_one(
    run: Run, toolchain: Toolchain, given_shell: OperatorShell, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    for name in {"DISCOVERY_SERVICE", "IMAGE_REGISTRY", "MACHINE_IMAGE"} - {missing}:
        monkeypatch.setenv(name, "given")

    with pytest.raises(Misconfigured, match=f"{missing} is not set"):
        make_ground(run, toolchain, given_shell)


def test_a_ground_that_is_given_is_taken_as_it_is(
    run: Run, toolchain: Toolchain, runner: FakeRunner, given_shell: OperatorShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISCOVERY_SERVICE", "https://discovery.example")
    monkeypatch.setenv("IMAGE_REGISTRY", "registry.example")
    monkeypatch.setenv("MACHINE_IMAGE", "ami-1")
    make_ground(run, toolchain, given_shell)

    assert runner.calls == []
    assert given_shell.env["DISCOVERY_SERVICE"] == "https://discovery.example"
