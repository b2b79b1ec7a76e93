"""`platform diagnose`: it says what is wrong and what to do, changes nothing, and leaves one file to send."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.commands.diagnose import diagnose, diagnosed
from harness.drivers.terraform import Outputs
from harness.errors import EnvironmentFailed, ExitStatus, HarnessError, Misconfigured
from harness.reports.verdict import ARCHIVE, HEADLINES, NOTHING_WRONG
from harness.runs.check import Check
from harness.runs.execution import Execution
from harness.runs.run import runs_folder
from harness.runs.workplace import in_use
from tests.diagnosing import ETCD_IS_DOWN, ONE_IS_SILENT, Standing, standing
from tests.places import OUTPUTS, PERSONS_AGENT, RUN_ID, as_printed, checkout, surroundings
from tests.transcripts.snapshots import changed, green

REMEDY = """
## Troubleshooting

6. A service of a machine does not run (`system-unit-runs`): read its last words, and start it.
"""


@pytest.fixture
def it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standing]:
    with surroundings(tmp_path, monkeypatch):
        root = checkout(tmp_path / "root")
        with (root / "README.md").open("a") as readme:
            readme.write(REMEDY)
        monkeypatch.chdir(root)
        yield standing(root, tmp_path, monkeypatch)


def document(it: Standing) -> dict[str, Any]:
    read = json.loads((it.of_diagnosis() / "run.json").read_text())
    assert isinstance(read, dict)
    return read


def tree(folder: Path) -> dict[str, bytes]:
    """What is in a run folder, but for the lock of who uses it."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "in-use")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# -- what it says ----------------------------------------------------------------------------------------------------


def test_cluster_where_all_is_well(it: Standing, capsys: pytest.CaptureFixture[str]) -> None:
    assert diagnose(it.root, it.folder) == ExitStatus.VERIFIED

    said, folder = capsys.readouterr(), f".runs/{it.of_diagnosis().name}"
    assert said.out == "" and f"{NOTHING_WRONG}  (exit status 0)" in said.err and "cause " not in said.err
    assert f"  evidence   {folder}/evidence\n" in said.err
    assert f"  to send    {folder}/{ARCHIVE} (known secrets are masked)\n" in said.err
    run = document(it)
    assert (run["status"], run["headline"], run["causes"], run["journal"]) == (0, NOTHING_WRONG, [], [])
    assert (run["command"], run["cluster"]) == (["diagnose"], RUN_ID)
    assert [(stage["stage"], stage["outcome"]) for stage in run["stages"]] == [("diagnosis", "passed")]
    assert (it.of_diagnosis() / ARCHIVE).is_file()


def test_what_is_wrong_is_said_with_what_mends_it(it: Standing, capsys: pytest.CaptureFixture[str]) -> None:
    it.looker.shows = ETCD_IS_DOWN

    assert diagnose(it.root, it.folder) == ExitStatus.PLATFORM_WRONG
    text = capsys.readouterr().err
    assert f"{HEADLINES[ExitStatus.PLATFORM_WRONG]}  (exit status 1)" in text
    assert "  cause      etcd on coreos-1 (layer bootstrap, " in text
    assert "  mend       ssh -F ssh_config coreos-1 'sudo systemctl start etcd'\n" in text
    assert "etcd[7]: its last words" in text


def test_what_nobody_could_see_is_said(it: Standing, capsys: pytest.CaptureFixture[str]) -> None:
    unasked = {"plan": None, "outside.kernel": None, "unasked": ("plan", "kernel"), "outside.kernel_refused": "a line"}
    it.looker.shows = changed(green(), unasked)

    assert diagnose(it.root, it.folder) == ExitStatus.VERIFIED
    assert (
        "  not seen   Terraform's plan (not asked), the kernel's log (not asked: a line)\n" in capsys.readouterr().err
    )


def test_what_was_asked_and_not_answered_is_wrong(it: Standing, capsys: pytest.CaptureFixture[str]) -> None:
    it.looker.shows = changed(green(), {"plan": None})

    assert diagnose(it.root, it.folder) == ExitStatus.PLATFORM_WRONG
    text = capsys.readouterr().err
    assert "  cause      plan (layer provision, " in text
    assert "  not seen   Terraform's plan (asked, no answer)\n" in text


def test_programs_are_told_the_same(it: Standing, capsys: pytest.CaptureFixture[str]) -> None:
    it.looker.shows = ETCD_IS_DOWN

    assert diagnose(it.root, it.folder, as_json=True) == ExitStatus.PLATFORM_WRONG
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert said.err == "" and told["status"] == 1 and told["run"] == it.of_diagnosis().name
    assert told["causes"][0]["finding"]["rule"] == "system-unit-runs"
    assert told["causes"][0]["to_do"].startswith("Troubleshooting 6: ")
    assert told["unseen"] == [] and told["faults"] == []


def test_machine_that_is_silent_is_a_cause_and_the_others_tell(it: Standing) -> None:
    it.looker.shows = ONE_IS_SILENT

    assert diagnose(it.root, it.folder) == ExitStatus.PLATFORM_WRONG
    assert [cause["finding"]["about"] for cause in document(it)["causes"]] == ["machine coreos-1"]
    assert {name for name, _ in it.asked} == {"coreos-0", "coreos-2"}
    assert (it.of_diagnosis() / "evidence/coreos-1/silent.txt").is_file()


# -- what ends it otherwise ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "outcome"),
    [
        (KeyboardInterrupt(), ExitStatus.INTERRUPTED, "interrupted"),
        (EnvironmentFailed("no"), ExitStatus.ENVIRONMENT_FAILED, "failed"),
        (Misconfigured("no"), ExitStatus.MISCONFIGURED, "failed"),
        (HarnessError("no"), ExitStatus.INTERNAL_ERROR, "failed"),
        (OSError(28, "No space left on device"), ExitStatus.ENVIRONMENT_FAILED, "failed"),
    ],
)
def test_what_ends_a_diagnosis_is_its_status_and_the_record_is_written(
    it: Standing, error: BaseException, status: ExitStatus, outcome: str
) -> None:
    it.looker.shows = error

    assert diagnose(it.root, it.folder) == status
    run = document(it)
    assert (run["status"], [stage["outcome"] for stage in run["stages"]]) == (int(status), [outcome])
    assert it.agent.ended == 1 and (it.of_diagnosis() / ARCHIVE).is_file()


def test_unexpected_error_comes_out_and_the_agent_is_ended(it: Standing) -> None:
    it.looker.shows = ValueError("not what was thought")

    with pytest.raises(ValueError, match="not what was thought"):
        diagnose(it.root, it.folder)
    assert it.agent.ended == 1 and document(it)["status"] == int(ExitStatus.INTERNAL_ERROR)


# -- it changes nothing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shows", [ETCD_IS_DOWN, KeyboardInterrupt()])
def test_cluster_stays_as_it_is(it: Standing, shows: Any) -> None:
    it.looker.shows, before = shows, tree(it.folder)
    diagnose(it.root, it.folder)

    assert tree(it.folder) == before and it.agent.ended == 1


def test_others_may_use_the_cluster_meanwhile_and_nobody_may_change_it(
    it: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    went: list[str] = []

    def outputs(execution: Execution) -> Outputs:
        with in_use(it.folder, alone=False):
            went.append("used")
        with pytest.raises(Misconfigured, match="is being used"), in_use(it.folder, alone=True):
            went.append("changed")
        return OUTPUTS

    monkeypatch.setattr(Execution, "outputs", outputs)

    assert diagnose(it.root, it.folder) == ExitStatus.VERIFIED
    assert went == ["used"]


def test_cluster_that_is_being_changed_is_not_diagnosed(it: Standing) -> None:
    with in_use(it.folder, alone=True), pytest.raises(Misconfigured, match="is being changed, made or removed"):
        diagnose(it.root, it.folder)

    assert it.looker.within == [] and list(runs_folder(it.root).iterdir()) == [it.folder], "nothing was recorded"


def test_fault_that_a_drill_left_is_noted_and_not_undone(it: Standing, capsys: pytest.CaptureFixture[str]) -> None:
    note = it.folder / "fault-etcd-stopped.json"
    note.write_text('{"name": "etcd-stopped", "places": ["coreos-1"], "undo": "mend it", "subject": "etcd"}')

    diagnose(it.root, it.folder)

    assert note.exists() and not any("mend it" in command for _, command in it.asked)
    assert "  note       a drill was killed and left a fault behind: the next nightly undoes it\n" in (
        capsys.readouterr().err
    )


# -- of outputs ------------------------------------------------------------------------------------------------------


def of_outputs(it: Standing, tmp_path: Path, key: Path | None) -> Check:
    file = tmp_path / "outputs.json"
    file.write_text(as_printed(OUTPUTS))
    return Check.of_outputs(it.root, ["diagnose"], "local", file, key, keyless=True)


def test_without_any_key_it_says_what_it_can(
    it: Standing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who has lost the key has to be told so by the cluster, not by usage."""
    monkeypatch.delenv("SSH_AUTH_SOCK")
    it.looker.shows = ONE_IS_SILENT
    check = of_outputs(it, tmp_path, None)

    assert diagnosed(check) == ExitStatus.PLATFORM_WRONG
    assert "  cause      machine coreos-1 " in capsys.readouterr().err
    assert document(it)["cluster"] is None and it.agent.ended == 0
    assert not check.workplace.shell_state.exists() and not check.workplace.key.exists()


@pytest.mark.parametrize("shows", [ETCD_IS_DOWN, KeyboardInterrupt(), EnvironmentFailed("no")])
def test_key_that_was_given_does_not_stay(it: Standing, tmp_path: Path, shows: Any) -> None:
    key = tmp_path / "id"
    key.write_text((it.folder / "key").read_text())
    it.looker.shows, check = shows, of_outputs(it, tmp_path, key)
    assert not check.workplace.key.exists()

    diagnosed(check)

    assert it.agent.ended == 1
    assert not check.workplace.shell_state.exists() and not check.workplace.key.exists()


def test_without_a_key_the_agent_of_the_person_is_used(
    it: Standing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def outputs(execution: Execution) -> Outputs:
        seen.append(execution.workplace.shell.env["SSH_AUTH_SOCK"])
        return OUTPUTS

    monkeypatch.setattr(Execution, "outputs", outputs)
    diagnosed(of_outputs(it, tmp_path, None))

    assert (seen, it.agent.ended) == ([PERSONS_AGENT], 0)
