"""Clusters that a run makes: whatever ends the run, it has a record, and nothing is left but what was to be kept."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.errors import EnvironmentFailed, ExitStatus, HarnessError, Misconfigured, PlatformWrong
from harness.record.log import read_events
from harness.runs import acceptance as acceptance_module
from harness.runs.acceptance import BUILDING, Acceptance, down, target_takes
from harness.runs.agent import Agent
from harness.runs.execution import Execution
from harness.runs.standing import chosen, standing, standing_on
from harness.runs.workplace import Workplace, in_use
from harness.setup.limits import Room
from harness.setup.toolchain import Toolchain
from tests.bodies import Body, fails, passes, raises
from tests.places import EXAMPLE, OUTPUTS, FakeAgent, as_printed, checkout, program, surroundings

# A stand-in for Terraform: it says what it was asked, knows one answer, and gives up its state unless it is locked
TERRAFORM = """#!/bin/sh
echo "terraform $1 in $PWD" >> {root}/asked
case $1 in
output) cat {root}/outputs.json ;;
destroy)
    [ ! -e {root}/locked ] || {{ echo "state is locked" >&2; exit 1; }}
    rm -rf terraform.tfstate
    ;;
esac
"""
# A stand-in for Docker: containers are lines of a file, and stay while there is a file `stuck`
DOCKER = """#!/bin/sh
echo "docker $*" >> {root}/asked
case $1 in
ps) cat {root}/containers 2>/dev/null || true ;;
rm) [ -e {root}/stuck ] || rm {root}/containers ;;
esac
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout, with tools and a ground that answer as they should."""
    with surroundings(tmp_path, monkeypatch):
        root = checkout(tmp_path / "root")
        program(tmp_path, "terraform", TERRAFORM.format(root=root))
        program(tmp_path, "docker", DOCKER.format(root=root))
        (root / "outputs.json").write_text(as_printed(OUTPUTS))
        (root / "asked").touch()
        monkeypatch.chdir(root)
        monkeypatch.setattr(Toolchain, "prepare", lambda toolchain, tasks: None)
        monkeypatch.setattr(Toolchain, "forget_build_files", lambda toolchain: None)
        monkeypatch.setattr(Agent, "start", lambda run, key, environment: FakeAgent())
        monkeypatch.setattr(acceptance_module, "room_for", room)
        monkeypatch.setattr(acceptance_module, "make_ground", lambda workplace, toolchain: None)
        # machines that do not answer are evidence's part
        monkeypatch.setattr("harness.runs.acceptance.of_failed_run", lambda execution: None)
        yield root


@contextmanager
def room(machines: int, takes: dict[str, int]) -> Iterator[Room]:
    yield Room({}, Path("/proc"))


@pytest.fixture
def features(monkeypatch: pytest.MonkeyPatch) -> Callable[[Body], None]:
    """Puts something in the place of pytest: it has applied a plan, and then does what the test says."""

    def put(body: Body) -> None:
        def execute(execution: Execution, selection: Sequence[str] = (), *, read_only: bool = False) -> None:
            with execution.run.stage("runbook"):
                (execution.workplace.target_folder / "terraform.tfstate").write_text("{}")
                body(execution)

        monkeypatch.setattr(Execution, "features", execute)

    return put


@pytest.fixture
def run(root: Path) -> Acceptance:
    return Acceptance(root, "local", None, ["acceptance"])


def document(run: Acceptance) -> dict[str, Any]:
    read = json.loads((run.run.folder / "run.json").read_text())
    assert isinstance(read, dict)
    return read


def stages(run: Acceptance) -> list[tuple[str, str]]:
    return [(stage["stage"], stage["outcome"]) for stage in document(run)["stages"]]


def asked(root: Path, word: str) -> list[str]:
    return [line for line in (root / "asked").read_text().splitlines() if word in line]


def left(folder: Path) -> list[str]:
    """What is in the run folder beside the record and what is made from it."""
    record = ("events.jsonl", "run.json", "report.html", "junit.xml")
    return sorted(path.name for path in folder.iterdir() if path.name not in record)


KEPT = ["env", "in-use", "key", "known_hosts", "operator", "operator.json", "ssh_config"]


# -- what could not be built ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [False, True])
def test_an_interrupted_set_up_is_torn_down_and_recorded(
    run: Acceptance, root: Path, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    def interrupted(toolchain: Toolchain, tasks: object) -> None:
        toolchain.end_commands()
        raise KeyboardInterrupt

    monkeypatch.setattr(Toolchain, "prepare", interrupted)

    assert run(keep=keep) == ExitStatus.INTERRUPTED
    assert asked(root, f"label=platform.run={run.run.run_id}")
    assert stages(run) == [("setup", "interrupted"), ("teardown", "passed")]
    assert document(run)["status"] == 2
    assert (run.run.folder / "report.html").exists()
    assert left(run.run.folder) == []


def test_while_it_sets_up_clean_of_any_checkout_sees_that_it_needs_the_cache(
    run: Acceptance, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def prepare(toolchain: Toolchain, tasks: object) -> None:
        seen.append(standing_on(toolchain.cache.folder))
        raise EnvironmentFailed("no network")

    monkeypatch.setattr(Toolchain, "prepare", prepare)
    run()

    assert seen == [[str(run.run.folder)]]
    assert standing_on(run.execution.toolchain.cache.folder) == []


@pytest.mark.parametrize("keep", [False, True])
def test_a_failed_set_up_is_torn_down_and_recorded(
    run: Acceptance, root: Path, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    monkeypatch.setattr(Toolchain, "prepare", raises(EnvironmentFailed("no network")))

    assert run(keep=keep) == ExitStatus.ENVIRONMENT_FAILED
    assert asked(root, f"label=platform.run={run.run.run_id}")
    assert document(run)["stages"][0]["error"] == "no network"
    assert left(run.run.folder) == []


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (EnvironmentFailed("the ground does not answer"), ExitStatus.ENVIRONMENT_FAILED),
        (Misconfigured("IMAGE_REGISTRY is not set"), ExitStatus.MISCONFIGURED),
        (OSError(28, "No space left on device"), ExitStatus.ENVIRONMENT_FAILED),
        (KeyboardInterrupt(), ExitStatus.INTERRUPTED),
    ],
)
def test_a_failed_ground_is_torn_down_though_the_cluster_was_to_be_kept(
    run: Acceptance, monkeypatch: pytest.MonkeyPatch, keep: bool, error: BaseException, status: ExitStatus
) -> None:
    monkeypatch.setattr(acceptance_module, "make_ground", raises(error))
    # there is no cluster to ask what is wrong with it
    asked: list[object] = []
    monkeypatch.setattr(acceptance_module, "of_failed_run", asked.append)

    assert run(keep=keep) == status and asked == []
    assert [stage for stage, _ in stages(run)] == ["setup", "ground", "teardown"]
    assert left(run.run.folder) == []


def test_without_room_nothing_is_made(run: Acceptance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptance_module, "room_for", raises(EnvironmentFailed("3 machines take 800 MiB of memory")))
    monkeypatch.setattr(Workplace, "open", raises(AssertionError("nothing is to be made")))

    monkeypatch.setattr(Toolchain, "prepare", raises(AssertionError("it is said before set-up")))

    assert run() == ExitStatus.ENVIRONMENT_FAILED
    assert document(run)["stages"][0]["error"] == "3 machines take 800 MiB of memory"


def test_variables_that_cannot_be_read_are_wrong_usage_before_anything_is_made(root: Path) -> None:
    (root / "terraform.example.tfvars").write_text("machines = {")

    with pytest.raises(Misconfigured, match=r"terraform\.example\.tfvars line 1"):
        Acceptance(root, "local", None, ["acceptance"])
    assert not (root / ".runs").exists()


@pytest.mark.parametrize("machines", [0, -1, 101])
def test_a_size_that_no_cluster_has_is_wrong_usage_before_anything_is_made(root: Path, machines: int) -> None:
    said = rf"machines = {machines}: a cluster has 1 to 100 \(fleet's authors advise no more\)"
    with pytest.raises(Misconfigured, match=said):
        Acceptance(root, "local", machines, ["acceptance"])
    (root / "terraform.example.tfvars").write_text(f"machines = {machines}")
    with pytest.raises(Misconfigured, match=said):
        Acceptance(root, "local", None, ["acceptance"])
    assert not (root / ".runs").exists()


@pytest.mark.parametrize(
    ("machines", "example", "wanted"),
    [(7, EXAMPLE, 7), (None, EXAMPLE, 3), (None, 'machines = "2 + 3"', 1), (None, "", 1)],
)
def test_room_is_held_for_the_cluster_while_the_runbook_builds_it(
    root: Path,
    features: Callable[[Body], None],
    monkeypatch: pytest.MonkeyPatch,
    machines: int | None,
    example: str,
    wanted: int,
) -> None:
    held: list[tuple[int, dict[str, int], list[float]]] = []
    during: list[object] = []

    class Held(Room):
        def ends_in(self, seconds: float) -> None:
            held[-1][2].append(seconds)

    @contextmanager
    def hold(machines: int, takes: dict[str, int]) -> Iterator[Room]:
        held.append((machines, takes, []))
        yield Held({}, Path("/proc"))
        held.pop()

    (root / "infra/local/target.json").write_text('{"takes": {"memory_mib": 96}}')
    (root / "terraform.example.tfvars").write_text(example)
    monkeypatch.setattr(acceptance_module, "room_for", hold)
    features(lambda execution: during.extend(held))
    Acceptance(root, "local", machines, ["acceptance"])()

    assert during == [(wanted, {"memory_mib": 96}, [60.0 + 3.0 * wanted])]
    assert held == []


# -- kept, or removed ----------------------------------------------------------------------------------------------


def test_what_was_interrupted_is_removed_though_it_was_to_be_kept(
    run: Acceptance, root: Path, features: Callable[[Body], None]
) -> None:
    features(raises(KeyboardInterrupt()))

    assert run(keep=True) == ExitStatus.INTERRUPTED
    assert stages(run)[-2:] == [("runbook", "interrupted"), ("teardown", "passed")]
    assert len(asked(root, "terraform destroy")) == 1
    assert left(run.run.folder) == []


def test_a_cluster_on_which_a_scenario_failed_is_kept(
    run: Acceptance, root: Path, features: Callable[[Body], None], capsys: pytest.CaptureFixture[str]
) -> None:
    features(fails)

    assert run(keep=True) == ExitStatus.PLATFORM_WRONG
    assert left(run.run.folder) == KEPT
    assert asked(root, "terraform destroy") == []
    assert f"bin/platform down --run {run.run.run_id}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [PlatformWrong("no"), EnvironmentFailed("no"), HarnessError("pytest ended with status 3")]
)
def test_a_cluster_whose_runbook_could_not_end_is_kept(
    run: Acceptance, features: Callable[[Body], None], error: HarnessError
) -> None:
    features(raises(error))

    assert run(keep=True) == error.status
    assert left(run.run.folder) == KEPT
    assert standing(run.run.root) == [run.run.run_id]


def test_a_cluster_that_is_kept_is_said_to_stand_and_how_it_is_reached(
    run: Acceptance, features: Callable[[Body], None], capsys: pytest.CaptureFixture[str]
) -> None:
    features(passes)

    assert run(keep=True) == ExitStatus.VERIFIED
    assert [stage for stage, _ in stages(run)] == ["setup", "ground", "runbook"]
    assert (document(run)["cluster"], document(run)["run_id"]) == (run.run.run_id, run.run.run_id)
    assert left(run.run.folder) == KEPT
    said = capsys.readouterr()
    assert said.out == ""
    assert f"ssh -F .runs/{run.run.run_id}/ssh_config coreos-0" in said.err
    assert chosen(run.run.root, None) == run.run.folder


def test_where_nothing_was_applied_there_is_nothing_to_keep(
    run: Acceptance, features: Callable[[Body], None], capsys: pytest.CaptureFixture[str]
) -> None:
    features(lambda execution: (execution.workplace.target_folder / "terraform.tfstate").unlink())

    assert run(keep=True) == ExitStatus.NOTHING_VERIFIED
    assert left(run.run.folder) == []
    assert "bin/platform down" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        ("{}", "there are no machines: nothing has been applied"),
        ("no JSON", "answer of terraform output not understood"),
        ('{"machines": {"value": {}}}', "answer of terraform output not understood: no output 'entrypoint-ip'"),
    ],
)
def test_a_cluster_that_cannot_be_reached_is_not_kept(
    run: Acceptance, root: Path, features: Callable[[Body], None], outputs: str, reason: str
) -> None:
    (root / "outputs.json").write_text(outputs)
    features(passes)

    assert run(keep=True) == ExitStatus.VERIFIED
    (note,) = document(run)["notes"]
    assert note["text"].startswith(f"the cluster is not kept: {reason}")
    assert left(run.run.folder) == []


def test_a_run_removes_its_cluster(run: Acceptance, root: Path, features: Callable[[Body], None]) -> None:
    features(passes)

    assert run() == ExitStatus.VERIFIED
    assert stages(run)[-1] == ("teardown", "passed")
    assert len(asked(root, "terraform destroy")) == 1
    assert left(run.run.folder) == []
    assert standing(root) == []


def test_a_run_that_nobody_chose_anything_for_is_without_what_is_slow(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Sequence[str]] = []
    monkeypatch.setattr(Execution, "features", lambda execution, selection: asked.append(selection))
    for selection in ((), BUILDING):
        run = Acceptance(root, "local", None, ["acceptance"])
        run(selection)
        assert document(run)["selection"] == (list(selection) or None)

    assert asked == [("-m", "not slow"), BUILDING]


def test_what_could_not_be_removed_is_said_and_its_keys_stay(
    run: Acceptance, root: Path, features: Callable[[Body], None], capsys: pytest.CaptureFixture[str]
) -> None:
    features(passes)
    (root / "locked").touch()

    assert run() == ExitStatus.ENVIRONMENT_FAILED
    said = capsys.readouterr().err
    assert "could not be removed cleanly" in said
    assert f"bin/platform down --run {run.run.run_id}" in said
    assert left(run.run.folder) == ["in-use", "key", "operator", "operator.json"]


def test_a_cluster_that_is_being_made_is_nobody_elses(run: Acceptance, features: Callable[[Body], None]) -> None:
    refused = []

    def somebody_else(execution: Execution) -> None:
        with pytest.raises(Misconfigured) as busy, in_use(execution.workplace.folder, alone=False):
            pass
        refused.append(str(busy.value))

    features(somebody_else)
    run()

    assert len(refused) == 1
    assert "is being changed, made or removed by another command" in refused[0]


def test_the_size_reaches_the_operators_variables(root: Path, features: Callable[[Body], None]) -> None:
    seen = []
    features(lambda execution: seen.append((execution.workplace.operators / "terraform.example.tfvars").read_text()))
    Acceptance(root, "local", 7, ["acceptance"])()

    assert seen == [EXAMPLE.replace("3", "7")]


# -- by hand -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (EnvironmentFailed("no network"), ExitStatus.ENVIRONMENT_FAILED),
        (Misconfigured("no root"), ExitStatus.MISCONFIGURED),
        (KeyboardInterrupt(), ExitStatus.INTERRUPTED),
    ],
)
def test_a_shell_whose_ground_fails_is_not_opened_and_leaves_nothing(
    run: Acceptance, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: ExitStatus
) -> None:
    monkeypatch.setattr(acceptance_module, "make_ground", raises(error))
    monkeypatch.setattr(acceptance_module, "open_shell", raises(AssertionError("it must not be opened")))

    assert run.by_hand() == status
    assert left(run.run.folder) == []


def test_what_was_typed_by_hand_is_removed_at_the_end_of_the_shell(
    run: Acceptance, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def typed(execution: Execution) -> None:
        (execution.workplace.target_folder / "terraform.tfstate").write_text("{}")
        # others may look at it meanwhile
        with in_use(execution.workplace.folder, alone=False):
            pass

    monkeypatch.setattr(acceptance_module, "open_shell", typed)

    assert run.by_hand() == ExitStatus.VERIFIED
    assert len(asked(root, "terraform destroy")) == 1
    assert left(run.run.folder) == []


# -- down ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(run: Acceptance, features: Callable[[Body], None]) -> Acceptance:
    features(passes)
    assert run(keep=True) == ExitStatus.VERIFIED
    return run


def test_a_cluster_that_is_in_use_is_not_removed(kept: Acceptance, root: Path) -> None:
    before = (kept.run.folder / "events.jsonl").read_bytes()

    with (
        in_use(kept.run.folder, alone=False),
        pytest.raises(Misconfigured, match="is being used, made or removed by another command: wait"),
    ):
        down(root, kept.run.folder)
    assert asked(root, "terraform destroy") == []
    assert left(kept.run.folder) == KEPT
    assert (kept.run.folder / "events.jsonl").read_bytes() == before


def test_machines_that_cannot_be_destroyed_are_the_environments_failure_and_can_be_tried_again(
    kept: Acceptance, root: Path
) -> None:
    (root / "locked").touch()

    with pytest.raises(EnvironmentFailed, match=r"the teardown is not complete .*state is locked"):
        down(root, kept.run.folder)
    assert stages(kept)[-1] == ("teardown", "failed")
    assert left(kept.run.folder) == KEPT
    assert standing(root) == [kept.run.run_id]

    (root / "locked").unlink()
    down(root, kept.run.folder)
    assert stages(kept)[-2:] == [("teardown", "failed"), ("teardown", "passed")]
    assert left(kept.run.folder) == []


def test_what_remains_all_the_same_is_the_environments_failure(kept: Acceptance, root: Path) -> None:
    (root / "containers").write_text("platform-x-coreos-0\n")
    (root / "stuck").touch()

    with pytest.raises(EnvironmentFailed) as remains:
        down(root, kept.run.folder)
    assert str(remains.value) == f"of run {kept.run.run_id} remain: container platform-x-coreos-0"
    assert stages(kept)[-1] == ("teardown", "failed")


def test_a_leak_that_could_be_removed_is_recorded_and_no_failure(kept: Acceptance, root: Path) -> None:
    (root / "containers").write_text("platform-x-coreos-0\n")
    down(root, kept.run.folder)

    assert [(leak["name"], leak["removed"]) for leak in document(kept)["leaks"]] == [("platform-x-coreos-0", True)]


def test_an_engine_that_cannot_be_had_leaves_the_cluster_as_it_is(
    kept: Acceptance, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "infra/local/target.json").write_text('{"takes": {"memory_mib": 96}}')
    monkeypatch.setattr(Toolchain, "prepare", raises(EnvironmentFailed("the Docker Engine does not answer")))

    with pytest.raises(EnvironmentFailed, match="the Docker Engine does not answer"):
        down(root, kept.run.folder)
    assert stages(kept)[-1] == ("teardown", "failed")
    assert left(kept.run.folder) == KEPT


def test_a_kept_cluster_is_removed_and_its_record_goes_on(kept: Acceptance, root: Path) -> None:
    before = (kept.run.folder / "events.jsonl").read_bytes()
    verdict = (document(kept)["status"], document(kept)["headline"], document(kept)["ended"])
    down(root, kept.run.folder)

    assert (kept.run.folder / "events.jsonl").read_bytes().startswith(before)
    assert [stage for stage, _ in stages(kept)] == ["setup", "ground", "runbook", "teardown"]
    assert (document(kept)["status"], document(kept)["headline"], document(kept)["ended"]) == verdict
    assert len(asked(root, "terraform destroy")) == 1
    assert left(kept.run.folder) == []
    assert standing(root) == []


def test_what_is_removed_can_be_removed_again(kept: Acceptance, root: Path) -> None:
    down(root, kept.run.folder)
    down(root, kept.run.folder)

    assert stages(kept)[-2:] == [("teardown", "passed"), ("teardown", "passed")]


def test_the_key_of_a_kept_cluster_does_not_get_into_the_record_of_its_removal(
    kept: Acceptance, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = kept.workplace.key.read_text()
    tear_down = Workplace.tear_down

    def told(workplace: Workplace) -> None:
        workplace.run.recorder.emit("note", text=key)
        tear_down(workplace)

    monkeypatch.setattr(Workplace, "tear_down", told)
    down(root, kept.run.folder)

    assert document(kept)["notes"][-1]["text"].count("[ssh private key]") >= 1
    assert key.splitlines()[2] not in (kept.run.folder / "events.jsonl").read_text()


@pytest.mark.parametrize("stood", [True, False])
def test_what_a_killed_run_left_is_removed(run: Acceptance, root: Path, stood: bool) -> None:
    run.execution.begin()
    run.run.recorder.emit("stage.started", stage="ground")
    if stood:
        run.workplace.open(run.execution.toolchain, "local")
        (run.workplace.target_folder / "terraform.tfstate").write_text("{}")
    run.workplace.ground_folder.mkdir()
    (run.workplace.ground_folder / "terraform.tfstate").write_text("{}")
    run.run.recorder.close()
    with (run.run.folder / "events.jsonl").open("ab") as log:
        log.write(b'{"t": 1.5, "kind": "command.sta')
    down(root, chosen(root, run.run.run_id, gone_too=True))

    assert [line.split(" in ")[0] for line in asked(root, "terraform")] == ["terraform destroy"] * (1 + stood)
    assert stages(run) == [("ground", "interrupted"), ("teardown", "passed")]
    assert document(run)["status"] is None
    assert left(run.run.folder) == []


@pytest.mark.parametrize(("takes", "asked_for"), [({"memory_mib": 96}, [("docker engine",)]), ({}, [])])
def test_the_engine_is_looked_for_where_machines_are_of_this_machine(
    kept: Acceptance,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    takes: dict[str, int],
    asked_for: list[tuple[str, ...]],
) -> None:
    prepared: list[object] = []
    monkeypatch.setattr(Toolchain, "prepare", lambda toolchain, tasks: prepared.append(tasks))
    (root / "infra/local/target.json").write_text(json.dumps({"takes": takes}))
    down(root, kept.run.folder)

    assert prepared == asked_for
    assert all(task in Toolchain.TASKS for tasks in asked_for for task in tasks)


def test_a_target_that_is_gone_meanwhile_does_not_keep_its_cluster(kept: Acceptance, root: Path) -> None:
    for name in ("infra/cloud", "infra/local"):
        (root / name).mkdir(exist_ok=True)
    kept.workplace.shell.export(TARGET="cloud")
    (kept.workplace.operators / "infra/local").rename(kept.workplace.operators / "infra/cloud")
    down(root, kept.run.folder)

    assert len(asked(root, "terraform destroy")) == 1
    assert left(kept.run.folder) == []


def test_what_a_target_takes(root: Path) -> None:
    (root / "infra/local/target.json").write_text('{"takes": {"memory_mib": 96}}')
    (root / "infra/cloud").mkdir()
    (root / "infra/cloud/target.json").write_text("{}")

    assert target_takes(root, "local") == target_takes(root, "") == target_takes(root, "gone") == {"memory_mib": 96}
    assert target_takes(root, "cloud") == {}


def test_the_record_of_a_removal_is_read_with_the_one_before(kept: Acceptance, root: Path) -> None:
    down(root, kept.run.folder)
    kinds = [event["kind"] for event in read_events(kept.run.folder / "events.jsonl")]

    assert kinds.count("run.started") == kinds.count("run.ended") == 1
    assert os.path.relpath(kept.run.folder) == document(kept)["folder"]
