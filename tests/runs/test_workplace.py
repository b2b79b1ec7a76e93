"""The operator's workplace: what is made for them, how it is shared, and that all of it goes, whatever fails."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.drivers.shell import OperatorShell
from harness.drivers.terraform import Outputs
from harness.errors import CommandFailed, EnvironmentFailed, Misconfigured
from harness.record.log import Recorder, Redactor
from harness.runs.agent import Agent
from harness.runs.run import Run
from harness.runs.workplace import (
    MACHINES_AT_MOST,
    OPERATORS_FILES,
    Workplace,
    add_secrets,
    builds,
    in_use,
    known_target,
    targets,
)
from harness.seams.process import Processes
from harness.seams.wait import Waiter
from harness.setup.cache import Cache
from harness.setup.toolchain import Toolchain
from tests.fakes import FakeRunner
from tests.places import EXAMPLE, OUTPUTS, PERSONS_AGENT, RUN_ID, FakeAgent, a_run, checkout, recorded

ROOT = Path(__file__).resolve().parent.parent.parent
needs_agent = pytest.mark.skipif(not shutil.which("ssh-agent"), reason="no ssh-agent on this machine")
needs_ssh = pytest.mark.skipif(not shutil.which("ssh"), reason="no ssh on this machine")
pytestmark = pytest.mark.usefixtures("temporary")


@pytest.fixture
def run(root: Path, runner: FakeRunner) -> Iterator[Run]:
    for listing in ("docker ps", "docker network ls", "docker volume ls"):
        runner.on(listing)
    with a_run(root, runner) as run:
        yield run


@pytest.fixture
def place(run: Run) -> Workplace:
    return Workplace(run, run.folder)


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> FakeAgent:
    """The agent that is started from now on."""
    agent = FakeAgent()
    monkeypatch.setattr(Agent, "start", lambda run, key, environment: agent)
    return agent


@pytest.fixture
def toolchain(root: Path, tmp_path: Path, recorder: Recorder, runner: FakeRunner) -> Toolchain:
    toolchain = Toolchain(root, Cache(tmp_path / "cache"), runner, recorder, Waiter(recorder))
    toolchain.programs = {"fleet": Path("/opt/tools")}
    toolchain.terraform_config = Path("/opt/terraformrc")
    return toolchain


# -- removed -------------------------------------------------------------------------------------------------------

TASKS = ["destroy machines", "destroy ground", "end ssh-agent", "look for leaks"]
OPERATORS = {"TARGET": "local", "PATH": "/opt/tools"}


@pytest.fixture
def standing(place: Workplace) -> Workplace:
    """A workplace whose machines, ground, agent, secrets and folders are all there."""
    OperatorShell.open(place.run.process, place.shell_state, place.operators, OPERATORS)
    for folder in (place.target_folder, place.ground_folder):
        folder.mkdir(parents=True)
        (folder / "terraform.tfstate").write_text("{}")
        (folder / "run.auto.tfvars.json").write_text("{}")
    for name in ("key", "env", "ssh_config", "known_hosts", "in-use"):
        (place.folder / name).write_text("a secret of many characters")
    place._agent = FakeAgent()  # type: ignore[assignment]
    return place


def left(place: Workplace) -> list[str]:
    """What is in the run folder beside the record."""
    return sorted(path.name for path in place.folder.iterdir() if path.name != "events.jsonl")


ALL = ["env", "ground", "in-use", "key", "known_hosts", "operator", "operator.json", "ssh_config"]
UNEXPECTED = [
    CommandFailed(["terraform", "destroy"], 1, "", "state is locked"),
    EnvironmentFailed("the engine is gone"),
    OSError(28, "No space left on device"),
    subprocess.TimeoutExpired("ssh-agent", 5),
    ValueError("not what was thought"),
]


def breaks(task: str, error: Exception, place: Workplace, runner: FakeRunner) -> None:
    """From now on this task of the teardown fails; the others do not."""
    runner.on("terraform destroy")
    if task == "destroy machines":
        runner.on("terraform destroy", raises=error, does=lambda: runner.on("terraform destroy"))
    elif task == "destroy ground":
        runner.on("terraform destroy", does=lambda: runner.on("terraform destroy", raises=error))
    elif task == "end ssh-agent":
        place._agent = FakeAgent(error)  # type: ignore[assignment]
    else:
        runner.on("docker ps", raises=error)


@pytest.mark.parametrize("error", UNEXPECTED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("task", TASKS)
def test_what_fails_in_a_teardown_stops_nothing_after_it_and_keeps_what_it_is_needed_for(
    standing: Workplace, runner: FakeRunner, task: str, error: Exception
) -> None:
    breaks(task, error, standing, runner)
    # an error nobody thought of comes out as it is: after the rest was done
    expected = ValueError if isinstance(error, ValueError) else EnvironmentFailed

    with pytest.raises(expected) as failed:
        standing.tear_down()
    if expected is EnvironmentFailed:
        assert f"remove the rest with `bin/platform down --run {RUN_ID}`): " in str(failed.value)
        assert str(error) in str(failed.value)
    assert [event["task"] for event in recorded(standing.run, "task.started")] == TASKS
    outcomes = {event["task"]: event["outcome"] for event in recorded(standing.run, "task.ended")}
    assert outcomes == dict.fromkeys(TASKS, "done") | {task: "failed"}
    assert left(standing) == ALL


def test_a_teardown_of_which_everything_fails_is_tried_as_a_whole(standing: Workplace, runner: FakeRunner) -> None:
    runner.on("terraform destroy", status=1, stderr="state is locked").on("docker ps", status=1, stderr="no engine")
    standing._agent = FakeAgent(OSError("no"))  # type: ignore[assignment]

    with pytest.raises(EnvironmentFailed, match="the teardown is not complete"):
        standing.tear_down()
    ended = recorded(standing.run, "task.ended")
    assert [(event["task"], event["outcome"]) for event in ended] == [(task, "failed") for task in TASKS]
    assert all(event["error"] for event in ended)
    assert left(standing) == ALL


def test_a_teardown_that_failed_is_done_again(standing: Workplace, runner: FakeRunner) -> None:
    breaks("destroy ground", EnvironmentFailed("the engine is gone"), standing, runner)
    with pytest.raises(EnvironmentFailed):
        standing.tear_down()
    runner.on("terraform destroy")
    standing.tear_down()

    assert left(standing) == []


def test_a_teardown_goes_from_the_machines_down(standing: Workplace, runner: FakeRunner) -> None:
    runner.on("terraform destroy")
    standing.tear_down()

    assert [event["task"] for event in recorded(standing.run, "task.started")] == TASKS
    assert {event["outcome"] for event in recorded(standing.run, "task.ended")} == {"done"}
    machines, ground = (call for call in runner.details if "destroy" in call.argv)
    assert (machines.cwd, ground.cwd) == (standing.operators / "infra/local", standing.ground_folder)
    assert ("-var-file=../../terraform.tfvars" in machines.argv, len(ground.argv)) == (True, len(machines.argv) - 1)
    assert machines.env == ground.env == OPERATORS
    assert [call.split()[:2] for call in runner.calls][:3] == [
        ["terraform", "destroy"],
        ["terraform", "destroy"],
        ["docker", "ps"],
    ]
    assert left(standing) == []
    assert recorded(standing.run, "leak") == []


def test_a_state_that_a_backend_has_is_destroyed_too(standing: Workplace, runner: FakeRunner) -> None:
    for folder in (standing.target_folder, standing.ground_folder):
        (folder / ".terraform").mkdir()
        (folder / "terraform.tfstate").rename(folder / ".terraform/terraform.tfstate")
    runner.on("terraform destroy")
    standing.tear_down()

    assert len([call for call in runner.calls if call.startswith("terraform destroy")]) == 2


def test_without_a_state_there_is_nothing_to_destroy(standing: Workplace, runner: FakeRunner) -> None:
    for folder in (standing.target_folder, standing.ground_folder):
        (folder / "terraform.tfstate").unlink()
    standing.tear_down()

    assert [call.split()[0] for call in runner.calls] == ["docker"] * 3
    assert left(standing) == []


def test_a_ground_whose_operator_is_gone_is_destroyed_all_the_same(
    standing: Workplace, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    standing.shell_state.unlink()
    standing._agent = None
    monkeypatch.setenv("OF_THE_PERSON", "kept")
    runner.on("terraform destroy")
    standing.tear_down()

    assert [event["task"] for event in recorded(standing.run, "task.started")] == TASKS[1:]
    (destroyed,) = (call for call in runner.details if "destroy" in call.argv)
    assert destroyed.cwd == standing.ground_folder
    assert destroyed.env is not None
    assert destroyed.env["OF_THE_PERSON"] == "kept"
    assert left(standing) == []


def test_what_was_never_made_is_not_destroyed(place: Workplace, runner: FakeRunner) -> None:
    place.tear_down()

    assert [call.split()[0] for call in runner.calls] == ["docker"] * 3
    assert {event["outcome"] for event in recorded(place.run, "task.ended")} == {"done"}


def test_a_teardown_can_be_had_again(standing: Workplace, runner: FakeRunner) -> None:
    runner.on("terraform destroy")
    standing.tear_down()
    standing.tear_down()

    assert left(standing) == []


def test_the_agent_of_a_kept_cluster_is_ended_by_the_process_that_removes_it(
    standing: Workplace, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = []
    monkeypatch.setattr(Agent, "end", lambda agent: ended.append((agent.run_id, agent.pid, str(agent.socket))))
    standing._agent = None
    standing.shell.export(SSH_AGENT_PID="4194304", SSH_AUTH_SOCK="/an/agents/socket")
    runner.on("terraform destroy")
    standing.tear_down()

    assert ended == [(RUN_ID, 4194304, "/an/agents/socket")]


# -- made ----------------------------------------------------------------------------------------------------------


def test_a_target_that_is_not_there_is_refused_before_anything_is_made(place: Workplace, toolchain: Toolchain) -> None:
    with pytest.raises(Misconfigured, match="there is no target locl: did you mean local\\? targets are local"):
        place.open(toolchain, "locl")

    assert left(place) == []


def test_targets_are_the_folders_with_a_target_file(tmp_path: Path) -> None:
    for name in ("infra/local/target.json", "infra/cloud/target.json", "infra/image/Dockerfile", "infra/target.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    assert targets(tmp_path) == ["cloud", "local"]
    known_target(ROOT, "local")
    with pytest.raises(Misconfigured, match="there is no target image: targets are cloud, local"):
        known_target(tmp_path, "image")


def test_an_example_that_cannot_be_read_is_said_before_an_agent_is_started(
    place: Workplace, toolchain: Toolchain, root: Path, agent: FakeAgent
) -> None:
    (root / "terraform.example.tfvars").write_text("machines = {\n")

    with pytest.raises(Misconfigured, match=r"terraform.example.tfvars line \d"):
        place.open(toolchain, "local", 5)
    assert left(place) == ["operator"]
    assert agent.ended == 0


def test_an_agent_that_cannot_be_started_leaves_a_workplace_that_can_be_removed(
    place: Workplace, toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(Misconfigured, match="ssh-agent is not installed"):
        place.open(toolchain, "local")
    place.tear_down()
    assert left(place) == []


@pytest.fixture
def opened(
    place: Workplace, toolchain: Toolchain, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workplace]:
    monkeypatch.setenv("TF_LOG", "trace")
    monkeypatch.setenv("FLEETCTL_ENDPOINT", "http://elsewhere")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-x")
    monkeypatch.setenv("SSH_AGENT_PID", "7")
    monkeypatch.setenv("OF_THE_PERSON", "kept")
    place.open(toolchain, "local", 7)
    return place


def test_the_number_of_machines_is_put_into_the_operators_copy_only(opened: Workplace, root: Path) -> None:
    assert (opened.operators / "terraform.example.tfvars").read_text() == EXAMPLE.replace("3", "7")
    assert (root / "terraform.example.tfvars").read_text() == EXAMPLE


def test_without_a_number_the_example_is_as_it_is(place: Workplace, toolchain: Toolchain, agent: FakeAgent) -> None:
    place.open(toolchain, "local")

    assert (place.operators / "terraform.example.tfvars").read_text() == EXAMPLE


def test_the_operators_folder_is_a_copy_without_state(opened: Workplace, root: Path) -> None:
    assert opened.shell.cwd == opened.operators
    assert sorted(path.name for path in opened.operators.iterdir()) == sorted(OPERATORS_FILES)
    assert sorted(path.name for path in opened.target_folder.iterdir()) == [
        "run.auto.tfvars.json",
        "target.json",
        "variables.tf",
    ]
    assert sorted(path.name for path in (root / "infra/local").iterdir()) == [
        ".terraform",
        "target.json",
        "terraform.tfvars",
        "variables.tf",
    ]


def test_what_lets_the_operator_in_elsewhere_is_not_copied(
    place: Workplace, toolchain: Toolchain, root: Path, agent: FakeAgent
) -> None:
    (root / "infra/local/hosts.key").touch()
    place.open(toolchain, "local")

    assert not (place.target_folder / "hosts.key").exists()


def test_a_target_is_handed_only_what_it_declares(opened: Workplace) -> None:
    file = opened.target_folder / "run.auto.tfvars.json"
    (opened.target_folder / "variables.tf").write_text('variable "name_server" {\n  type = string\n}\n')
    before = json.loads(file.read_text())
    opened.hand_over({"name_server": "192.0.2.4", "name_key": "c2VjcmV0"})

    assert json.loads(file.read_text()) == before | {"name_server": "192.0.2.4"}


def test_nothing_steers_the_operators_tools_behind_the_runbook(opened: Workplace, agent: FakeAgent) -> None:
    environment = opened.environment

    assert {"TF_LOG", "FLEETCTL_ENDPOINT", "PYTEST_ADDOPTS"} & set(environment) == set()
    assert environment["OF_THE_PERSON"] == "kept"
    assert environment["PATH"].startswith("/opt/tools:")
    assert (environment["TARGET"], environment["PLATFORM_RUN"]) == ("local", RUN_ID)
    assert {name: environment[name] for name in agent.variables} == agent.variables
    assert os.environ["SSH_AUTH_SOCK"] == str(agent.socket), "our own connections use it too"


def test_the_operators_key_is_for_their_eyes_and_the_target_knows_its_public_half(opened: Workplace) -> None:
    variables = json.loads((opened.target_folder / "run.auto.tfvars.json").read_text())

    assert opened.key.stat().st_mode & 0o777 == 0o600
    assert opened.key.read_text().startswith("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    assert variables["run_id"] == RUN_ID
    assert variables["ssh_public_key"].endswith(f" operator@{RUN_ID}\n")
    opened.run.recorder.emit("note", text=opened.key.read_text())
    assert opened.key.read_text().splitlines()[2] not in opened.run.recorder.path.read_text()


def test_a_key_file_that_is_there_already_stays_for_its_owners_eyes(place: Workplace) -> None:
    place.put_key("one secret of many characters\n")
    place.put_key("another secret of many characters\n")

    assert place.key.stat().st_mode & 0o777 == 0o600
    assert place.key.read_text() == "another secret of many characters\n"


def test_host_keys_are_in_one_file_of_the_owner_and_never_in_the_record(opened: Workplace) -> None:
    file = opened.target_folder / "run.auto.tfvars.json"
    keys = json.loads(file.read_text())["ssh_host_keys"]

    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(keys) == sorted(f"coreos-{index}" for index in range(MACHINES_AT_MOST))
    opened.run.recorder.emit("note", text=keys["coreos-7"]["private"])
    assert keys["coreos-7"]["private"].splitlines()[2] not in opened.run.recorder.path.read_text()


def test_another_process_knows_the_secrets_of_a_workplace(opened: Workplace) -> None:
    redact = Redactor()
    add_secrets(redact, opened.folder)
    keys = json.loads((opened.target_folder / "run.auto.tfvars.json").read_text())["ssh_host_keys"]
    host, user = keys["coreos-99"]["private"].splitlines()[2], opened.key.read_text().splitlines()[2]

    assert redact(f"x {host} y {user} z") == "x [ssh host key] y [ssh private key] z"


def test_another_process_knows_the_key_of_the_name_server(opened: Workplace) -> None:
    opened.hand_over({"name_server": "10.208.0.4", "name_key": "c2VjcmV0IG9mIHRoZSBuYW1lcw=="})
    redact = Redactor()
    add_secrets(redact, opened.folder)

    assert redact("x c2VjcmV0IG9mIHRoZSBuYW1lcw== y") == "x [key of the name server] y"


def test_a_cluster_without_a_name_server_has_no_key_to_hide(opened: Workplace) -> None:
    opened.hand_over({"name_server": "", "name_key": ""})
    redact = Redactor()
    add_secrets(redact, opened.folder)

    assert redact("anything at all") == "anything at all"


@pytest.mark.parametrize("cut", ["", '{"ssh_host_keys": {"coreos-0": {"priv', "[]"])
def test_a_cluster_whose_hand_over_was_cut_is_removed_all_the_same(
    standing: Workplace, runner: FakeRunner, capsys: pytest.CaptureFixture[str], cut: str
) -> None:
    """An older version that was killed while it wrote: nothing had been applied with it."""
    file = standing.target_folder / "run.auto.tfvars.json"
    file.write_text(cut)
    (standing.target_folder / "terraform.tfstate").unlink()
    redact = Redactor()
    add_secrets(redact, standing.folder)

    assert capsys.readouterr().err.startswith(f"platform: {file} is cut off (")
    assert redact(standing.key.read_text()) == "[ssh private key]"
    runner.on("terraform destroy")
    standing.tear_down()
    assert left(standing) == []


def test_a_workplace_without_secrets_adds_none(tmp_path: Path) -> None:
    redact = Redactor()
    add_secrets(redact, tmp_path)

    assert redact("anything at all") == "anything at all"


# -- kept ----------------------------------------------------------------------------------------------------------

ODD = 'it\'s "odd" $HOME `id` \\ and\n has two lines'


@pytest.fixture
def kept(opened: Workplace) -> Workplace:
    opened.shell.export(FLEETCTL_TUNNEL="gone", FLEETCTL_ODD=ODD, DISCOVERY_SERVICE="http://192.0.2.1/v2/keys/x")
    opened.keep(OUTPUTS)
    return opened


def sourced(place: Workplace) -> dict[str, str]:
    """The environment of a shell that read `env`."""
    bash, env = shutil.which("bash"), shutil.which("env")
    assert bash is not None
    answer = subprocess.run(
        [bash, "-c", f'. "$1" && exec {env} -0', "bash", place.folder / "env"], env={}, capture_output=True, check=True
    ).stdout.decode()
    variables = dict(pair.split("=", 1) for pair in answer.split("\0") if pair)
    return {name: value for name, value in variables.items() if name not in ("PWD", "SHLVL", "_", "OLDPWD")}


def test_a_shell_that_reads_env_reaches_the_kept_cluster(kept: Workplace, agent: FakeAgent) -> None:
    assert sourced(kept) == {
        "PATH": kept.environment["PATH"],
        "TARGET": "local",
        "TF_CLI_CONFIG_FILE": "/opt/terraformrc",
        "DISCOVERY_SERVICE": "http://192.0.2.1/v2/keys/x",
        "SSH_AUTH_SOCK": str(agent.socket),
        "FLEETCTL_TUNNEL": "192.0.2.10",
        "FLEETCTL_KNOWN_HOSTS_FILE": str(kept.folder / "known_hosts"),
        "FLEETCTL_ODD": ODD,
    }
    assert (kept.folder / "known_hosts").read_text() == OUTPUTS.known_hosts


def as_ssh_sees(place: Workplace, machine: str) -> dict[str, str]:
    answer = subprocess.run(
        ["ssh", "-G", "-F", place.folder / "ssh_config", machine], capture_output=True, text=True, check=True
    ).stdout
    return dict(line.split(" ", 1) for line in answer.splitlines() if " " in line)


@needs_ssh
def test_ssh_reaches_the_entry_point_at_once_and_the_others_through_it(kept: Workplace) -> None:
    entry, other = as_ssh_sees(kept, "coreos-0"), as_ssh_sees(kept, "coreos-2")

    assert (entry["hostname"], entry.get("proxyjump", "none")) == ("192.0.2.10", "none")
    assert (other["hostname"], other["proxyjump"]) == ("192.0.2.12", "coreos-0")
    for seen in (entry, other):
        assert (seen["user"], seen["identityfile"], seen["identitiesonly"]) == ("core", str(kept.key), "yes")
        assert (seen["userknownhostsfile"], seen["stricthostkeychecking"]) == (
            str(kept.folder / "known_hosts"),
            "true",
        )


@needs_ssh
def test_ssh_finds_key_and_known_hosts_of_a_checkout_with_an_odd_path(
    tmp_path: Path, runner: FakeRunner, toolchain: Toolchain, agent: FakeAgent
) -> None:
    with a_run(checkout(tmp_path / "my projects 100%h"), runner) as run:
        place = Workplace(run, run.folder)
        place.open(toolchain, "local")
        place.keep(OUTPUTS)

        seen = as_ssh_sees(place, "coreos-0")
        assert seen["userknownhostsfile"].replace("%%", "%") == str(place.folder / "known_hosts")
        assert seen["identityfile"].replace("%%", "%") == str(place.key)
        assert sourced(place)["FLEETCTL_KNOWN_HOSTS_FILE"] == str(place.folder / "known_hosts")


def test_behind_a_fixed_address_machines_are_reached_through_an_entry_point(kept: Workplace) -> None:
    machines = {"coreos-0": "192.0.2.9", "coreos-1": "192.0.2.10"}
    kept.keep(Outputs("198.51.100.1", machines, "core", "", {}, "", ("coreos-0", "coreos-1")))

    assert as_ssh_sees(kept, "coreos-1")["proxyjump"] == "coreos-0"
    assert "proxyjump" not in as_ssh_sees(kept, "coreos-0")


def test_the_one_machine_of_a_small_cluster_is_its_entry_point(kept: Workplace) -> None:
    kept.keep(Outputs("192.0.2.9", {"coreos-0": "192.0.2.9"}, "core", "", {}, "", ("coreos-0",)))

    assert "ProxyJump" not in (kept.folder / "ssh_config").read_text()
    assert sourced(kept)["FLEETCTL_TUNNEL"] == "192.0.2.9"


# -- used ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "wanted", "line"),
    [
        (
            "alone",
            "alone",
            f"the cluster of run {RUN_ID} is being used, made or removed by another command: wait for it to end",
        ),
        (
            "shared",
            "alone",
            f"the cluster of run {RUN_ID} is being used, made or removed by another command: wait for it to end",
        ),
        (
            "alone",
            "shared",
            f"the cluster of run {RUN_ID} is being changed, made or removed by another command: wait for it to end",
        ),
    ],
)
def test_a_use_that_does_not_go_with_another_is_refused_until_it_ends(
    place: Workplace, held: str, wanted: str, line: str
) -> None:
    with in_use(place.folder, alone=held == "alone"):
        with pytest.raises(Misconfigured) as refused, in_use(place.folder, alone=wanted == "alone"):
            pytest.fail("it must not come in")
        assert str(refused.value) == line
    with in_use(place.folder, alone=wanted == "alone"):
        pass


def test_several_use_a_cluster_at_once(place: Workplace) -> None:
    with in_use(place.folder, alone=False), in_use(place.folder, alone=False):
        pass


def test_a_use_that_failed_holds_nothing(place: Workplace) -> None:
    with contextlib.suppress(KeyboardInterrupt), in_use(place.folder, alone=True):
        raise KeyboardInterrupt
    with in_use(place.folder, alone=True):
        pass


@pytest.fixture
def found(run: Run) -> Workplace:
    """The workplace of a kept cluster, as another run finds it: its agent is gone."""
    run.process = Processes(run.recorder)
    place = Workplace(run, run.folder)
    place.operators.mkdir()
    state = {"PATH": os.environ["PATH"], "SSH_AUTH_SOCK": "/gone", "SSH_AGENT_PID": "4194304", "TARGET": "local"}
    OperatorShell.open(run.process, place.shell_state, place.operators, state)
    return place


def state_of(place: Workplace) -> dict[str, str]:
    environment = json.loads(place.shell_state.read_text())["env"]
    assert isinstance(environment, dict)
    return environment


@needs_agent
def test_a_run_types_with_an_agent_of_its_own_which_is_not_carried_on(found: Workplace, temporary: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", found.key], check=True)
    found.unlock()
    own = found.shell.env["SSH_AUTH_SOCK"]
    typed = found.shell.type('echo "$SSH_AUTH_SOCK"; ssh-add -L; export OF_THE_LINE=1; export SSH_AUTH_SOCK=/x').stdout

    assert own not in ("/gone", PERSONS_AGENT)
    assert os.environ["SSH_AUTH_SOCK"] == own, "our own connections use it too"
    assert typed.split()[:3] == [own, *Path(f"{found.key}.pub").read_text().split()[:2]]
    assert state_of(found)["SSH_AUTH_SOCK"] == "/gone"
    assert state_of(found)["SSH_AGENT_PID"] == "4194304"
    assert state_of(found)["OF_THE_LINE"] == "1"
    found.lock()
    assert not Path(own).exists()
    assert list(temporary.iterdir()) == []


def test_without_a_key_the_persons_agent_stays(found: Workplace, agent: FakeAgent) -> None:
    found.unlock()
    found.lock()

    assert (found.shell.own, agent.ended) == ({}, 0)
    assert os.environ["SSH_AUTH_SOCK"] == PERSONS_AGENT


HOSTS = 'variable "key_file" {}\n'


@pytest.mark.parametrize(
    ("target", "said", "whose"),
    [
        ("", "", "/an/agents/socket"),
        (HOSTS, 'key_file = "/home/me/.ssh/id"\n', "/an/agents/socket"),
        (HOSTS, 'key_file = ""\n', PERSONS_AGENT),
        (HOSTS, 'user = "debian"\n', PERSONS_AGENT),
    ],
)
def test_a_key_of_the_persons_agent_is_used_where_hosts_are_to_be_reached_by_it(
    found: Workplace, agent: FakeAgent, runner: FakeRunner, target: str, said: str, whose: str
) -> None:
    found.run.process = runner.on("ssh-add")
    found.target_folder.mkdir(parents=True)
    (found.target_folder / "variables.tf").write_text(target)
    (found.target_folder / "hosts.auto.tfvars").write_text(said)
    found.put_key("a secret of many characters")
    found.unlock()

    assert found.shell.own["SSH_AUTH_SOCK"] == whose == os.environ["SSH_AUTH_SOCK"]
    assert runner.calls == ([f"ssh-add -q {found.key}"] if whose == PERSONS_AGENT else [])


def test_a_check_by_outputs_lends_nobody_a_key(found: Workplace, agent: FakeAgent, runner: FakeRunner) -> None:
    """No `down` takes it back."""
    found.run.process = runner
    found.target_folder.mkdir(parents=True)
    (found.target_folder / "variables.tf").write_text(HOSTS)
    (found.folder / "outputs.json").write_text("{}")
    found.put_key("a secret of many characters")
    found.unlock()

    assert found.shell.own["SSH_AUTH_SOCK"] == str(agent.socket) and runner.calls == []


def test_a_key_is_taken_back_from_the_agent_that_it_was_lent_to(
    standing: Workplace, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The person may have logged in anew since."""
    (standing.target_folder / "variables.tf").write_text(HOSTS)
    standing._agent = None
    standing.shell.export(SSH_AUTH_SOCK="/of/another/login")
    runner.on("terraform destroy").on("ssh-add")
    standing.tear_down()

    asked = [call.env["SSH_AUTH_SOCK"] for call in runner.details if "-d" in call.argv and call.env]
    assert asked == [PERSONS_AGENT, "/of/another/login"]


def test_hosts_are_given_back_with_an_agent_that_answers(
    standing: Workplace, agent: FakeAgent, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Terraform's provisioners stop at one that is gone, whatever key they are given."""
    (standing.target_folder / "variables.tf").write_text(HOSTS)
    (standing.target_folder / "hosts.auto.tfvars").write_text('key_file = "/home/me/.ssh/id"\n')
    standing._agent = None
    standing.shell.export(SSH_AGENT_PID="4194304", SSH_AUTH_SOCK="/gone")
    runner.on("terraform destroy")
    standing.tear_down()

    machines, ground = (call for call in runner.details if "destroy" in call.argv)
    assert machines.env is not None and machines.env["SSH_AUTH_SOCK"] == str(agent.socket)
    assert ground.env is not None and ground.env["SSH_AUTH_SOCK"] == str(agent.socket)
    assert agent.ended == 1 and left(standing) == []


def test_a_key_that_was_lent_is_taken_back_when_the_cluster_is_removed(
    standing: Workplace, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    (standing.target_folder / "variables.tf").write_text(HOSTS)
    standing._agent = None
    runner.on("terraform destroy").on("ssh-add")
    standing.tear_down()

    assert [call for call in runner.calls if "ssh-add" in call] == [
        f"ssh-add -q {standing.key}", f"ssh-add -q -d {standing.key}",
    ]  # fmt: skip


def test_an_agent_is_ended_once(found: Workplace, agent: FakeAgent) -> None:
    found.put_key("a secret of many characters")
    found.unlock()
    found.lock()
    found.lock()

    assert agent.ended == 1


def test_an_agent_that_cannot_be_started_leaves_nothing_to_end(
    found: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    found.put_key("no key at all, but long")
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(Misconfigured, match="ssh-agent is not installed"):
        found.unlock()
    found.lock()
    assert found.shell.own == {}


@pytest.mark.parametrize(
    ("its_own", "of_outputs", "expected"), [(True, False, True), (False, False, False), (True, True, False)]
)
def test_a_run_builds_the_cluster_of_its_own_workplace_and_none_that_it_knows_by_outputs(
    tmp_path: Path, its_own: bool, of_outputs: bool, expected: bool
) -> None:
    if of_outputs:
        (tmp_path / "outputs.json").write_text("{}")

    assert builds(tmp_path if its_own else tmp_path / "this-run", tmp_path) is expected


def test_who_reaches_a_cluster_no_more_has_neither_key_nor_shell(found: Workplace) -> None:
    found.put_key("a secret of many characters")
    found.forget()
    found.forget()

    assert left(found) == ["operator"]
