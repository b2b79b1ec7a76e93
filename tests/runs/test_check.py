"""A check of a standing cluster: it changes nothing unless it is asked to, says one line when all is well, and leaves
no key behind."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.errors import EnvironmentFailed, ExitStatus, HarnessError, Misconfigured
from harness.runs import check as check_module
from harness.runs.agent import Agent, Keys
from harness.runs.check import Check, check, join, nightly
from harness.runs.execution import Execution
from harness.runs.progress import last_green
from harness.runs.run import runs_folder
from harness.runs.standing import under_way
from harness.runs.workplace import in_use
from tests.bodies import Body, fails, passes, raises
from tests.places import (
    OUTPUTS,
    PERSONS_AGENT,
    RUN_ID,
    FakeAgent,
    as_printed,
    checkout,
    kept_run,
    program,
    surroundings,
)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with surroundings(tmp_path, monkeypatch):
        root = checkout(tmp_path / "root")
        monkeypatch.chdir(root)
        # what does not answer is evidence's part
        monkeypatch.setattr("harness.runs.check.of_failed_run", lambda execution: None)
        yield root


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> FakeAgent:
    agent = FakeAgent()
    monkeypatch.setattr(Agent, "start", lambda run, key, environment: agent)
    return agent


@pytest.fixture
def kept(root: Path) -> Path:
    """The folder of the run whose cluster stands."""
    return kept_run(root)


@pytest.fixture
def features(monkeypatch: pytest.MonkeyPatch, agent: FakeAgent) -> Callable[..., list[dict[str, Any]]]:
    """Puts something in the place of pytest; gives how it was started."""
    started: list[dict[str, Any]] = []

    def put(body: Body) -> list[dict[str, Any]]:
        def execute(execution: Execution, selection: Sequence[str] = (), *, read_only: bool = False) -> None:
            started.append({"selection": list(selection), "read_only": read_only, "ended": agent.ended})
            with execution.run.stage("runbook"):
                body(execution)

        monkeypatch.setattr(Execution, "features", execute)
        return started

    return put


def changes(execution: Execution) -> None:
    for serial in ("9", "10"):
        execution.run.recorder.emit("fingerprint", facts={"Terraform's serial": serial})
    passes(execution)


def folder_of_check(root: Path) -> Path:
    """The only run folder beside the kept one's."""
    (folder,) = (folder for folder in runs_folder(root).iterdir() if folder.name != RUN_ID)
    return folder


def document(root: Path) -> dict[str, Any]:
    read = json.loads((folder_of_check(root) / "run.json").read_text())
    assert isinstance(read, dict)
    return read


def left(folder: Path) -> list[str]:
    """What is in a run folder beside the record and what is made from it."""
    record = ("events.jsonl", "run.json", "report.html", "junit.xml", "pytest.log")
    return sorted(path.name for path in folder.iterdir() if path.name not in record)


# -- what ends it otherwise ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KeyboardInterrupt(), ExitStatus.INTERRUPTED),
        (EnvironmentFailed("no"), ExitStatus.ENVIRONMENT_FAILED),
        (Misconfigured("no"), ExitStatus.MISCONFIGURED),
        (HarnessError("no"), ExitStatus.INTERNAL_ERROR),
        (OSError(28, "No space left on device"), ExitStatus.ENVIRONMENT_FAILED),
    ],
)
def test_what_ends_a_check_is_its_status_and_the_cluster_stays(
    root: Path,
    kept: Path,
    agent: FakeAgent,
    features: Callable[[Body], object],
    error: BaseException,
    status: ExitStatus,
) -> None:
    features(raises(error))
    before = left(kept)

    assert check(root, kept, [], mutates=False) == status
    assert document(root)["status"] == int(status)
    assert agent.ended == 1
    assert left(kept) == sorted([*before, "in-use"])
    assert left(folder_of_check(root)) == []


def test_an_agent_that_cannot_be_started_ends_the_check_before_pytest(
    root: Path, kept: Path, features: Callable[[Body], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = features(passes)
    monkeypatch.setattr(Agent, "start", raises(EnvironmentFailed("the ssh-agent of the run: no")))

    assert check(root, kept, [], mutates=False) == ExitStatus.ENVIRONMENT_FAILED
    assert started == []
    assert [stage["stage"] for stage in document(root)["stages"]] == ["setup"]


def test_an_unexpected_error_comes_out_and_the_agent_is_ended(
    root: Path, kept: Path, agent: FakeAgent, features: Callable[[Body], object]
) -> None:
    features(raises(ValueError("not what was thought")))

    with pytest.raises(ValueError, match="not what was thought"):
        check(root, kept, [], mutates=False)
    assert agent.ended == 1


def test_a_cluster_that_changed_while_it_was_checked_was_not_judged(
    root: Path, kept: Path, features: Callable[[Body], object], capsys: pytest.CaptureFixture[str]
) -> None:
    features(changes)

    assert nightly(root, kept) == ExitStatus.ENVIRONMENT_FAILED
    said = capsys.readouterr()
    assert said.out == ""
    assert "Terraform's serial: 9" in said.err
    assert "Terraform's serial: 10" in said.err


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        (fails, [ExitStatus.PLATFORM_WRONG]),
        (passes, [ExitStatus.VERIFIED]),
        (raises(EnvironmentFailed("no")), [ExitStatus.ENVIRONMENT_FAILED]),
        (raises(KeyboardInterrupt()), []),
    ],
)
def test_evidence_is_asked_for_when_the_features_have_ended_and_the_key_is_still_there(
    root: Path,
    kept: Path,
    agent: FakeAgent,
    features: Callable[[Body], object],
    monkeypatch: pytest.MonkeyPatch,
    body: Body,
    asked: list[ExitStatus],
) -> None:
    seen: list[tuple[ExitStatus, int]] = []
    monkeypatch.setattr(
        check_module, "of_failed_run", lambda execution: seen.append((execution.judged().status, agent.ended))
    )
    features(body)
    check(root, kept, [], mutates=False)

    assert seen == [(status, 0) for status in asked]


# -- how pytest is started, and what it answers --------------------------------------------------------------------


@pytest.fixture
def pytest_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, agent: FakeAgent) -> Callable[[str], Path]:
    """Puts a script in the place of pytest, which first writes its arguments and environment into the file given."""
    told = tmp_path / "told"

    def put(script: str) -> Path:
        head = f'printf "%s\\n" "$@" > {told}; env | grep ^PLATFORM_ >> {told}\n'
        monkeypatch.setattr(sys, "executable", str(program(tmp_path, "python", f"#!/bin/sh\n{head}{script}\n")))
        return told

    return put


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (
            "echo 'ERROR: there is no features/9.feature: features are 01.feature'; exit 4",
            "this selection cannot be run: there is no features/9.feature: features are 01.feature",
        ),
        (
            "echo 'ERROR: usage: pytest'; echo 'ERROR: Exit: unknown --x'; exit 4",
            "this selection cannot be run: unknown --x",
        ),
        ("echo 'some words'; echo 'the last line'; exit 4", "this selection cannot be run: the last line"),
        ("exit 4", "this selection cannot be run: no output"),
    ],
)
def test_a_selection_that_pytest_does_not_understand_is_wrong_usage_in_one_line(
    root: Path, kept: Path, pytest_is: Callable[[str], Path], script: str, error: str
) -> None:
    pytest_is(script)

    assert check(root, kept, ["-k", "["], mutates=False) == ExitStatus.MISCONFIGURED
    assert document(root)["stages"][-1]["error"] == error


def test_what_the_shell_holds_for_another_pytest_does_not_steer_ours(
    root: Path, kept: Path, pytest_is: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD", "PYTEST_DEBUG"):
        monkeypatch.setenv(name, "--setup-plan")
    pytest_is("env | grep ^PYTEST_ && exit 3; exit 0")

    assert check(root, kept, [], mutates=False) == ExitStatus.NOTHING_VERIFIED


def test_features_that_cannot_be_executed_are_named_whatever_was_selected(
    root: Path, kept: Path, pytest_is: Callable[[str], Path]
) -> None:
    pytest_is("""echo 'ERROR: features/16.feature: "It" is the title of lines 4 and 8: each needs its own'; exit 4""")

    assert check(root, kept, [], mutates=False) == ExitStatus.MISCONFIGURED
    assert document(root)["stages"][-1]["error"] == (
        'features/16.feature: "It" is the title of lines 4 and 8: each needs its own'
    )


@pytest.mark.parametrize("status", [2, 3, 77])
def test_a_pytest_that_ends_otherwise_is_our_fault(
    root: Path, kept: Path, pytest_is: Callable[[str], Path], status: int
) -> None:
    pytest_is(f"for word in 1 2 3 4; do echo line $word; done; exit {status}")

    assert check(root, kept, [], mutates=False) == ExitStatus.INTERNAL_ERROR
    assert document(root)["stages"][-1]["error"] == (
        f"pytest ended with status {status}: line 2 / line 3 / line 4 (see pytest.log)"
    )


@pytest.mark.parametrize("status", [0, 5])
def test_a_pytest_that_answers_and_recorded_nothing_verified_nothing(
    root: Path, kept: Path, pytest_is: Callable[[str], Path], status: int
) -> None:
    pytest_is(f"exit {status}")

    assert check(root, kept, [], mutates=False) == ExitStatus.NOTHING_VERIFIED


def test_a_pytest_that_breaks_while_it_starts_is_our_fault(
    root: Path, kept: Path, pytest_is: Callable[[str], Path]
) -> None:
    """It ends with the status of a scenario that failed, and no scenario is known."""
    pytest_is("echo ImportError while loading conftest; exit 1")

    assert check(root, kept, [], mutates=False) == ExitStatus.INTERNAL_ERROR
    assert "ImportError while loading conftest" in document(root)["stages"][-1]["error"]


def test_an_interrupt_ends_pytest_in_order(
    root: Path, kept: Path, agent: FakeAgent, pytest_is: Callable[[str], Path], tmp_path: Path
) -> None:
    ended = tmp_path / "ended"
    pytest_is(f"trap 'touch {ended}; exit 2' INT; kill -INT $PPID; while :; do sleep 0.02; done")

    assert check(root, kept, [], mutates=False) == ExitStatus.INTERRUPTED
    assert ended.exists()
    assert agent.ended == 1
    assert document(root)["stages"][-1]["outcome"] == "interrupted"


@pytest.mark.parametrize("name", ["TERM", "HUP"])
def test_other_signals_interrupt_too(root: Path, kept: Path, pytest_is: Callable[[str], Path], name: str) -> None:
    pytest_is(f"trap 'exit 2' INT; kill -{name} $PPID; while :; do sleep 0.02; done")

    assert check(root, kept, [], mutates=False) == ExitStatus.INTERRUPTED


def test_a_pytest_that_does_not_hear_an_interrupt_is_killed(
    root: Path, kept: Path, pytest_is: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.runs.execution.END_LIMIT", 0.1)
    pytest_is("trap '' INT; kill -INT $PPID; sleep 30")
    began = time.monotonic()

    assert check(root, kept, [], mutates=False) == ExitStatus.INTERRUPTED
    assert time.monotonic() - began < 10


def test_a_second_interrupt_does_not_leave_pytest_behind(
    root: Path, kept: Path, agent: FakeAgent, pytest_is: Callable[[str], Path], tmp_path: Path
) -> None:
    """What comes next would run beside it: the teardown's destroy beside an apply."""
    ended = tmp_path / "ended"
    pytest_is(
        f"trap 'kill -INT $PPID; kill -TERM $PPID; sleep 0.2; touch {ended}; exit 2' INT; kill -INT $PPID; "
        "while :; do sleep 0.02; done"
    )

    assert check(root, kept, [], mutates=False) == ExitStatus.INTERRUPTED
    assert ended.exists()
    assert agent.ended == 1


def test_features_that_have_no_end_are_ended_and_what_they_stand_for_is_not_verified(
    root: Path, kept: Path, pytest_is: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("harness.runs.execution.READ_ONLY_LIMIT", 0.2)
    ended = tmp_path / "ended"
    pytest_is(f"trap 'touch {ended}; exit 2' INT; while :; do sleep 0.02; done")

    assert check(root, kept, [], mutates=False) == ExitStatus.PLATFORM_WRONG
    assert document(root)["stages"][-1]["error"] == "the features did not end within 0.2 s"
    assert ended.exists()


def test_what_pytest_prints_is_kept_for_its_owner_and_without_secrets(
    root: Path, kept: Path, pytest_is: Callable[[str], Path]
) -> None:
    secret = (kept / "key").read_text().splitlines()[1]
    pytest_is(f"echo 'the key is {secret}, said the traceback'; exit 5")
    check(root, kept, [], mutates=False)

    log = folder_of_check(root) / "pytest.log"
    assert log.read_text() == "the key is [ssh private key], said the traceback\n"
    assert log.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("selection", "mutates", "behind"),
    [
        ([], False, ["features", "--read-only"]),
        ([], True, ["features"]),
        (["-k", "blog"], False, ["features", "-k", "blog", "--read-only"]),
        (["features/08_site.feature:7"], False, ["features", "features/08_site.feature:7", "--read-only"]),
        (["features/08_site.feature", "-x"], True, ["features", "features/08_site.feature", "-x"]),
        (["features/test_runbook.py::test_a"], True, ["features/test_runbook.py::test_a"]),
    ],
)
def test_pytest_is_told_what_is_selected_and_where_record_and_workplace_are(
    root: Path, kept: Path, pytest_is: Callable[[str], Path], selection: list[str], mutates: bool, behind: list[str]
) -> None:
    told = pytest_is("exit 5")
    check(root, kept, selection, mutates=mutates)
    lines = told.read_text().splitlines()

    arguments = ["-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(root), *behind]
    assert lines[: len(arguments)] == arguments
    variables = dict(line.split("=", 1) for line in lines[len(arguments) :])
    assert variables["PLATFORM_FOLDER"] == str(folder_of_check(root))
    assert variables["PLATFORM_WORKPLACE"] == str(kept)
    assert variables["PLATFORM_RUN"] == folder_of_check(root).name
    assert document(root)["selection"] == (selection or None)


@pytest.mark.parametrize(
    ("body", "selection", "well"),
    [(passes, [], True), (passes, ["-m", "site"], False), (fails, [], False)],
    ids=["all of it", "a selection", "something is wrong"],
)
def test_when_all_was_last_well_is_remembered_beside_the_cluster(
    root: Path,
    kept: Path,
    features: Callable[[Body], list[dict[str, Any]]],
    body: Body,
    selection: list[str],
    well: bool,
) -> None:
    features(body)
    check(root, kept, selection, mutates=False)

    assert (last_green(kept) > 0) is well


# -- who else uses the cluster -------------------------------------------------------------------------------------


def test_a_cluster_that_is_being_changed_is_not_checked(
    root: Path, kept: Path, features: Callable[[Body], list[dict[str, Any]]]
) -> None:
    started = features(passes)

    for checks in (lambda: check(root, kept, [], mutates=False), lambda: nightly(root, kept), lambda: join(root, kept)):
        with in_use(kept, alone=True), pytest.raises(Misconfigured, match="is being changed, made or removed"):
            checks()
    assert started == []
    assert [folder.name for folder in runs_folder(root).iterdir()] == [RUN_ID], "nothing was recorded"


def test_a_check_that_changes_something_is_refused_beside_others(
    root: Path, kept: Path, features: Callable[[Body], list[dict[str, Any]]]
) -> None:
    started = features(passes)

    with (
        in_use(kept, alone=False),
        pytest.raises(Misconfigured, match="is being used, made or removed by another command"),
    ):
        check(root, kept, [], mutates=True)
    assert started == []


@pytest.mark.parametrize(("mutates", "goes"), [(False, True), (True, False)])
def test_only_a_check_that_changes_nothing_lets_others_in(
    root: Path, kept: Path, features: Callable[[Body], object], mutates: bool, goes: bool
) -> None:
    came_in = []

    def somebody_else(execution: Execution) -> None:
        try:
            with in_use(kept, alone=False):
                came_in.append(True)
        except Misconfigured:
            came_in.append(False)

    features(somebody_else)
    check(root, kept, [], mutates=mutates)

    assert came_in == [goes]


# -- what it does and says -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mutates", [False, True])
def test_a_check_changes_nothing_unless_it_is_asked_to(
    root: Path, kept: Path, features: Callable[[Body], list[dict[str, Any]]], mutates: bool
) -> None:
    started = features(passes)

    assert check(root, kept, ["-m", "site"], mutates=mutates) == ExitStatus.VERIFIED
    assert started == [{"selection": ["-m", "site"], "read_only": not mutates, "ended": 0}]


def test_nightly_changes_nothing_and_selects_nothing(
    root: Path, kept: Path, features: Callable[[Body], list[dict[str, Any]]]
) -> None:
    started = features(passes)
    nightly(root, kept)

    assert started == [{"selection": [], "read_only": True, "ended": 0}]
    assert (document(root)["command"], document(root)["selection"]) == (["nightly"], None)


def test_a_check_has_a_record_of_its_own_that_names_the_cluster(
    root: Path, kept: Path, features: Callable[[Body], object]
) -> None:
    before = (kept / "events.jsonl").read_bytes()
    features(passes)
    check(root, kept, ["-m", "site"], mutates=False)

    run = document(root)
    assert (run["cluster"], run["run_id"], run["target"]) == (RUN_ID, folder_of_check(root).name, "local")
    assert run["command"] == ["check", "-m", "site"]
    assert (kept / "events.jsonl").read_bytes() == before


def test_the_key_of_the_cluster_does_not_get_into_the_record(
    root: Path, kept: Path, features: Callable[[Body], object]
) -> None:
    key = (kept / "key").read_text()
    features(lambda execution: execution.run.recorder.emit("note", text=key))
    check(root, kept, [], mutates=False)

    assert key.splitlines()[2] not in (folder_of_check(root) / "events.jsonl").read_text()
    assert "[ssh private key]" in document(root)["notes"][0]["text"]


def test_nightly_says_one_line_when_all_is_well(
    root: Path, kept: Path, features: Callable[[Body], object], capfd: pytest.CaptureFixture[str]
) -> None:
    features(passes)

    assert nightly(root, kept) == ExitStatus.VERIFIED
    said = capfd.readouterr()
    (line,) = said.out.splitlines()
    assert line.startswith("Verified: the platform is as the runbook says (1 passed in 0.")
    assert line.endswith(f" s, cluster {RUN_ID}): .runs/{folder_of_check(root).name}/report.html")
    assert said.err == ""


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (fails, ExitStatus.PLATFORM_WRONG),
        (lambda execution: None, ExitStatus.NOTHING_VERIFIED),
        (raises(EnvironmentFailed("no")), ExitStatus.ENVIRONMENT_FAILED),
        (raises(KeyboardInterrupt()), ExitStatus.INTERRUPTED),
    ],
)
def test_nightly_says_nothing_on_stdout_and_the_verdict_on_stderr_otherwise(
    root: Path,
    kept: Path,
    features: Callable[[Body], object],
    capfd: pytest.CaptureFixture[str],
    body: Body,
    status: int,
) -> None:
    features(body)

    assert nightly(root, kept) == status
    said = capfd.readouterr()
    assert said.out == ""
    assert f"(exit status {int(status)})" in said.err
    assert f".runs/{folder_of_check(root).name}/report.html" in said.err


def test_a_check_says_the_verdict_when_all_is_well_too(
    root: Path, kept: Path, features: Callable[[Body], object], capfd: pytest.CaptureFixture[str]
) -> None:
    features(passes)
    check(root, kept, [], mutates=False)

    said = capfd.readouterr()
    assert said.out == ""
    assert "(exit status 0)" in said.err


# -- of outputs ----------------------------------------------------------------------------------------------------


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    file = tmp_path / "outputs.json"
    file.write_text(as_printed(OUTPUTS))
    return file


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "id"
    file.write_text(Keys.generate("operator@x").private)
    return file


def of_outputs(root: Path, outputs: Path, key: Path | None, target: str = "local") -> Check:
    return Check.of_outputs(root, ["nightly"], target, outputs, key)


def runs(root: Path) -> list[Path]:
    return list(runs_folder(root).iterdir()) if runs_folder(root).exists() else []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("no JSON", "Expecting value"),
        ("[]", "no attribute 'items'"),
        ("7", "no attribute 'items'"),
        ("{}", "no output 'entrypoint-ip'"),
        ('{"machines": 7}', "not subscriptable"),
        ('{"machines": {}}', "'value'"),
        ('{"machines": {"value": {}}}', "no output 'entrypoint-ip'"),
        ("No outputs found", "Expecting value"),
    ],
)
def test_a_file_that_is_no_outputs_is_wrong_usage_in_one_line(
    root: Path, outputs: Path, key: Path, text: str, reason: str
) -> None:
    outputs.write_text(text)

    with pytest.raises(Misconfigured) as refused:
        of_outputs(root, outputs, key)
    said = str(refused.value)
    assert said.startswith(f"{outputs} is not what `terraform output -json` prints: ")
    assert reason in said
    assert "\n" not in said
    assert runs(root) == []


@pytest.mark.parametrize(
    ("machines", "reason"),
    [
        ("coreos-0", "no attribute 'items'"),
        (["192.0.2.10"], "no attribute 'items'"),
        (None, "no attribute 'items'"),
        ({}, "the entry point 192.0.2.10 is no machine's address"),
        ({"another": "192.0.2.11"}, "the entry point 192.0.2.10 is no machine's address"),
    ],
)
def test_outputs_whose_machines_cannot_be_reached_are_wrong_usage(
    root: Path, outputs: Path, key: Path, machines: Any, reason: str
) -> None:
    outputs.write_text(as_printed(dataclasses.replace(OUTPUTS, machines=machines)))

    with pytest.raises(Misconfigured, match=reason):
        of_outputs(root, outputs, key)
    assert runs(root) == []


def test_a_file_that_cannot_be_read_is_wrong_usage(root: Path, outputs: Path, key: Path, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="gone is missing: make it with `terraform output -json`"):
        of_outputs(root, tmp_path / "gone", key)
    with pytest.raises(Misconfigured, match="gone is missing: give the operator's private SSH key"):
        of_outputs(root, outputs, tmp_path / "gone")
    with pytest.raises(Misconfigured, match="cannot be read: Is a directory"):
        of_outputs(root, outputs, tmp_path)
    outputs.write_bytes(b"\xff\xfe")
    with pytest.raises(Misconfigured, match="is not UTF-8"):
        of_outputs(root, outputs, key)
    assert runs(root) == []


def test_without_a_key_and_an_agent_no_machine_could_be_reached(
    root: Path, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK")

    with pytest.raises(Misconfigured, match="there is no SSH key to reach the machines with: give --key FILE"):
        of_outputs(root, outputs, None)
    assert runs(root) == []


def test_a_target_that_is_not_there_is_wrong_usage(root: Path, outputs: Path, key: Path) -> None:
    with pytest.raises(Misconfigured, match="there is no target locla: did you mean local"):
        of_outputs(root, outputs, key, target="locla")
    assert runs(root) == []


def test_while_outputs_are_checked_clean_sees_that_the_run_is_under_way(
    root: Path, outputs: Path, key: Path, agent: FakeAgent, features: Callable[[Body], object]
) -> None:
    seen: list[bool] = []
    features(lambda execution: (seen.append(under_way(execution.run.folder)), passes(execution))[1])
    checks = of_outputs(root, outputs, key)
    checks(quiet=True)

    assert (seen, under_way(checks.run.folder)) == ([True], False)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (passes, ExitStatus.VERIFIED),
        (fails, ExitStatus.PLATFORM_WRONG),
        (raises(KeyboardInterrupt()), ExitStatus.INTERRUPTED),
        (raises(EnvironmentFailed("no")), ExitStatus.ENVIRONMENT_FAILED),
    ],
)
def test_afterwards_neither_key_nor_shell_stay(
    root: Path,
    outputs: Path,
    key: Path,
    agent: FakeAgent,
    features: Callable[[Body], object],
    body: Body,
    status: ExitStatus,
) -> None:
    features(body)
    checks = of_outputs(root, outputs, key)
    place = checks.workplace
    # also of a run that is killed, which can remove nothing
    assert not any(key.read_text() in file.read_text() for file in place.folder.iterdir())

    assert checks(quiet=True) == status
    assert left(place.folder) == ["outputs.json"]
    assert agent.ended == 1
    assert key.exists()


def test_agent_gets_the_key_that_is_in_no_file(
    root: Path,
    outputs: Path,
    key: Path,
    agent: FakeAgent,
    features: Callable[[Body], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[str] = []
    monkeypatch.setattr(Agent, "start", lambda run, key, environment: (given.append(key), agent)[1])
    features(passes)
    of_outputs(root, outputs, key)(quiet=True)

    assert given == [key.read_text()]


def test_an_unexpected_error_leaves_no_key_either(
    root: Path, outputs: Path, key: Path, agent: FakeAgent, features: Callable[[Body], object]
) -> None:
    features(raises(ValueError("what")))
    checks = of_outputs(root, outputs, key)

    with pytest.raises(ValueError, match="what"):
        checks(quiet=True)
    assert left(checks.workplace.folder) == ["outputs.json"]


def test_a_key_that_no_agent_takes_leaves_nothing(
    root: Path,
    outputs: Path,
    key: Path,
    features: Callable[[Body], list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = features(passes)
    monkeypatch.setattr(Agent, "start", raises(EnvironmentFailed("the ssh-agent of the run: invalid format")))
    checks = of_outputs(root, outputs, key)

    assert checks(quiet=True) == ExitStatus.ENVIRONMENT_FAILED
    assert started == []
    assert left(checks.workplace.folder) == ["outputs.json"]


def test_a_check_of_outputs_works_in_the_checkout_and_stands_for_no_run(
    root: Path, outputs: Path, key: Path, features: Callable[[Body], list[dict[str, Any]]]
) -> None:
    seen: list[Any] = []

    def look(execution: Execution) -> None:
        shell = execution.workplace.shell
        seen.extend([shell.cwd, shell.env["TARGET"], execution.outputs()])

    started = features(look)
    of_outputs(root, outputs, key)(quiet=True)

    assert seen == [root, "local", OUTPUTS]
    assert started[0]["read_only"] is True
    assert (document(root)["cluster"], document(root)["target"]) == (None, "local")


def test_without_a_key_the_agent_of_the_person_is_used(
    root: Path, outputs: Path, agent: FakeAgent, features: Callable[[Body], object]
) -> None:
    seen = []
    features(lambda execution: seen.append(execution.workplace.shell.env["SSH_AUTH_SOCK"]))
    checks = of_outputs(root, outputs, None)
    checks(quiet=True)

    assert (seen, agent.ended) == ([PERSONS_AGENT], 0)
    assert left(checks.workplace.folder) == ["outputs.json"]


def test_the_key_that_was_given_does_not_get_into_the_record(
    root: Path, outputs: Path, key: Path, features: Callable[[Body], object]
) -> None:
    features(lambda execution: execution.run.recorder.emit("note", text=key.read_text()))
    of_outputs(root, outputs, key)(quiet=True)

    assert key.read_text().splitlines()[2] not in (folder_of_check(root) / "events.jsonl").read_text()


# -- a shell on the cluster ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("what")])
def test_a_shell_that_fails_leaves_no_agent(
    root: Path, kept: Path, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(check_module, "open_shell", raises(error))

    with pytest.raises(type(error)):
        join(root, kept)
    assert agent.ended == 1


def test_a_shell_on_a_cluster_has_an_agent_of_its_own_and_the_cluster_stays(
    root: Path, kept: Path, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def opened(execution: Execution) -> None:
        seen.append((execution.workplace.shell.env["SSH_AUTH_SOCK"], execution.workplace.shell.cwd, agent.ended))

    monkeypatch.setattr(check_module, "open_shell", opened)
    before = left(kept)
    join(root, kept)

    assert seen == [(str(agent.socket), kept / "operator", 0)]
    assert agent.ended == 1
    assert left(kept) == sorted([*before, "in-use"])
    assert json.loads((kept / "operator.json").read_text())["env"]["SSH_AUTH_SOCK"] == PERSONS_AGENT
