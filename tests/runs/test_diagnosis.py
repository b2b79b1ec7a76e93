"""Diagnosis: which runs end with one, what is looked at and collected, and that no secret is in what is sent."""

from __future__ import annotations

import base64
import json
import tarfile
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.drivers.terraform import NothingApplied
from harness.errors import AnswerNotUnderstood, CommandFailed, HarnessError
from harness.record.log import Redactor, read_events
from harness.reports.verdict import ARCHIVE
from harness.rules.finding import Finding, Subject
from harness.rules.judging import Cause
from harness.runs import diagnosis as module
from harness.runs import evidence
from harness.runs.agent import Keys
from harness.runs.diagnosis import archive, collect, of_failed_run
from harness.runs.execution import Execution
from harness.runs.run import Run
from harness.runs.watch import emit_causes
from harness.runs.workplace import OUTPUTS, SHELL_STATE, Workplace, add_secrets
from tests.bodies import Body, fails, passes
from tests.diagnosing import ETCD_IS_DOWN, ONE_IS_SILENT, QUESTIONS, Standing, standing
from tests.transcripts.machines import NAMES
from tests.transcripts.snapshots import changed

NOON = 1785585600.0


@pytest.fixture
def it(root: Path, temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Standing:
    monkeypatch.chdir(root)
    return standing(root, tmp_path, monkeypatch)


@pytest.fixture
def execution(it: Standing) -> Iterator[Execution]:
    """A check of the cluster, as far as its setup."""
    run = Run(it.root, "20260802-120000-cd34")
    workplace = Workplace(run, it.folder)
    add_secrets(run.redact, it.folder)
    execution = Execution(run, "local", ["check"], workplace)
    execution.begin()
    yield execution
    run.recorder.close()


def kinds(execution: Execution, *wanted: str) -> list[dict[str, Any]]:
    return [event for event in read_events(execution.run.recorder.path) if event["kind"] in wanted]


def collected(execution: Execution) -> set[str]:
    """MACHINE/QUESTION, of the evidence."""
    folder = execution.run.folder / "evidence"
    return {f"{file.parent.name}/{file.stem}" for file in folder.glob("*/*.txt")}


def caused(execution: Execution) -> list[tuple[str, str, str]]:
    """Rule, layer and subject of each cause."""
    found = [cause["finding"] for cause in execution.document()["causes"]]
    return [(it["rule"], it["layer"], it["about"]) for it in found]


EVERYTHING = {f"{name}/{question}" for name in NAMES for question in QUESTIONS}
KNOWN = Cause(Finding("system-unit-runs", "bootstrap", Subject("etcd", "", "coreos-2"), "active", "failed", NOON))


def knows_why(execution: Execution) -> None:
    emit_causes(execution.run.recorder, [KNOWN], 1)
    fails(execution)


# -- of a failed run -------------------------------------------------------------------------------------------------


def test_run_that_failed_ends_with_its_causes_and_evidence(it: Standing, execution: Execution) -> None:
    it.looker.shows = ETCD_IS_DOWN
    fails(execution)

    of_failed_run(execution)

    assert caused(execution) == [("system-unit-runs", "bootstrap", "etcd on coreos-1")]
    assert collected(execution) == EVERYTHING and len(it.looker.within) == 1
    assert {line["text"] for line in execution.document()["journal"]} == {"etcd[7]: its last words"}
    assert [stage["stage"] for stage in execution.document()["stages"]] == ["evidence"]


def test_run_that_knows_why_it_failed_looks_no_more(it: Standing, execution: Execution) -> None:
    knows_why(execution)

    of_failed_run(execution)

    assert it.looker.within == [] and kinds(execution, "look") == []
    assert caused(execution) == [("system-unit-runs", "bootstrap", "etcd on coreos-2")]
    assert collected(execution) == EVERYTHING
    journal = execution.document()["journal"]
    assert {line["machine"] for line in journal} == set(NAMES) and {line["time"] for line in journal} == {NOON - 4.5}


def applied(execution: Execution, *statuses: int) -> None:
    for number, status in enumerate(statuses):
        line = "terraform -chdir=infra/$TARGET apply platform.plan"
        began = {"id": str(number), "argv": None, "line": line, "cwd": "/", "environment": [], "typed": True}
        execution.run.recorder.emit("command.started", **began)
        execution.run.recorder.emit("command.ended", id=str(number), status=status, seconds=1, stdout="", stderr="")
    fails(execution)


def test_machines_that_were_never_made_are_not_looked_at(it: Standing, execution: Execution) -> None:
    """What is not there yet would hide why."""
    it.looker.shows = ETCD_IS_DOWN
    execution.workplace.folder = execution.run.folder  # it builds the cluster
    applied(execution, 1)

    of_failed_run(execution)

    assert it.looker.within == [] and caused(execution) == [] and collected(execution) == EVERYTHING


@pytest.mark.parametrize(("builds", "statuses"), [(True, (0, 1)), (True, (1, 0)), (False, (1,))])
def test_machines_that_stand_are_looked_at_whatever_was_not_changed(
    it: Standing, execution: Execution, builds: bool, statuses: tuple[int, ...]
) -> None:
    it.looker.shows = ETCD_IS_DOWN
    if builds:
        execution.workplace.folder = execution.run.folder
    applied(execution, *statuses)

    of_failed_run(execution)

    assert caused(execution) == [("system-unit-runs", "bootstrap", "etcd on coreos-1")]


def test_where_somebody_looked_and_found_nothing_nobody_looks_later(it: Standing, execution: Execution) -> None:
    """What a scenario took away is back by then, and may be booting."""
    emit_causes(execution.run.recorder, [], 7)
    fails(execution)

    of_failed_run(execution)

    assert it.looker.within == [] and caused(execution) == [] and collected(execution) == EVERYTHING


def misuses(execution: Execution) -> None:
    stage(execution, 4)


def fell_over(execution: Execution) -> None:
    stage(execution, 3)


def met_the_environment(execution: Execution) -> None:
    stage(execution, 6)


def was_interrupted(execution: Execution) -> None:
    stage(execution, 3, "interrupted")


def stage(execution: Execution, status: int, outcome: str = "failed") -> None:
    execution.run.recorder.emit("stage.started", stage="runbook")
    execution.run.recorder.emit("stage.ended", stage="runbook", seconds=1, outcome=outcome, error="e", status=status)


@pytest.mark.parametrize("body", [fell_over, met_the_environment])
def test_run_that_could_not_tell_ends_with_evidence(it: Standing, execution: Execution, body: Body) -> None:
    body(execution)
    of_failed_run(execution)

    assert collected(execution) == EVERYTHING


@pytest.mark.parametrize("body", [passes, misuses, was_interrupted, lambda execution: None])
def test_of_any_other_run_nothing_is_collected(it: Standing, execution: Execution, body: Body) -> None:
    body(execution)
    of_failed_run(execution)

    assert it.looker.within == [] and it.asked == [] and collected(execution) == set()
    assert "evidence" not in {stage["stage"] for stage in execution.document()["stages"]}


def test_where_there_is_no_operator_yet_nothing_can_be_asked(it: Standing, execution: Execution) -> None:
    fails(execution)
    (it.folder / SHELL_STATE).unlink()

    of_failed_run(execution)

    assert execution.document()["stages"] == [] and it.asked == []


def test_evidence_that_fails_does_not_hide_what_the_run_found(it: Standing, execution: Execution) -> None:
    it.looker.shows = HarnessError("no more files can be opened")
    fails(execution)
    before = execution.judged()

    of_failed_run(execution)

    assert execution.judged().status is before.status
    assert execution.document()["notes"][0]["text"] == "the evidence is not complete: no more files can be opened"


# -- what is looked at, and collected --------------------------------------------------------------------------------


def test_where_all_is_well_there_is_no_cause_and_all_the_evidence(it: Standing, execution: Execution) -> None:
    collect(execution)

    assert (caused(execution), execution.document()["journal"]) == ([], [])
    assert collected(execution) == EVERYTHING


def test_machine_that_is_silent_is_not_waited_for_again(it: Standing, execution: Execution) -> None:
    (it.root / "infra/local/target.json").write_text(json.dumps({"console": ["echo", "{run_id}-{machine}"]}))
    it.looker.shows = ONE_IS_SILENT

    collect(execution)

    assert [about for _, _, about in caused(execution)] == ["machine coreos-1"]
    assert sorted(name for name, _ in it.asked) == ["coreos-0", "coreos-0", "coreos-2", "coreos-2"]
    console = (execution.run.folder / "evidence/coreos-1/console.txt").read_text()
    assert console == f"{it.folder.name}-coreos-1\n"


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (None, "Terraform has no state: nothing was applied"),
        (AnswerNotUnderstood("terraform output", "{}", "no output 'entrypoint-ip'"), "no output 'entrypoint-ip'"),
        (NothingApplied("there are no machines: nothing has been applied"), "nothing has been applied"),
    ],
)
def test_where_there_is_no_cluster_that_is_the_cause(
    it: Standing, execution: Execution, monkeypatch: pytest.MonkeyPatch, answer: Exception | None, seen: str
) -> None:
    monkeypatch.setattr(Execution, "outputs", answers(answer))

    collect(execution)

    assert caused(execution) == [("cluster-is-made", "provision", "cluster")]
    (cause,) = execution.document()["causes"]
    assert seen in cause["finding"]["seen"] and cause["finding"]["paste"].startswith("terraform ")
    assert it.asked == [] and it.looker.within == []


def answers(answer: object) -> Callable[..., object]:
    def say(execution: Execution) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return say


def test_engine_that_does_not_answer_is_the_cause(it: Standing, execution: Execution) -> None:
    """The Docker client of these surroundings fails."""
    (it.root / "infra/local/target.json").write_text('{"takes": {"memory_mib": 340}}')
    collect(execution)

    assert caused(execution) == [("engine-answers", "environment", "this machine")]
    (cause,) = execution.document()["causes"]
    assert "the Docker Engine does not answer" in cause["finding"]["seen"]
    assert cause["finding"]["paste"] == "docker info" and it.asked == [] and it.looker.within == []


def test_target_that_takes_nothing_of_this_machine_needs_no_engine(it: Standing, execution: Execution) -> None:
    collect(execution)

    assert [command for command in kinds(execution, "command.started") if command["argv"][:1] == ["docker"]] == []


def test_terraform_that_fails_is_no_cause_but_a_failure(
    it: Standing, execution: Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Execution, "outputs", answers(CommandFailed(["terraform"], 1, "", "state is locked")))

    with pytest.raises(CommandFailed):
        collect(execution)


@pytest.mark.parametrize(("whole", "left"), [(30.0, 20.0), (3.0, 5.0)])
def test_looks_and_evidence_share_the_seconds(
    it: Standing, execution: Execution, monkeypatch: pytest.MonkeyPatch, whole: float, left: float
) -> None:
    given: list[float] = []
    monkeypatch.setattr(module, "WITHIN", whole)
    monkeypatch.setattr(evidence, "collect", lambda *arguments: given.append(arguments[-1]))

    collect(execution)

    assert it.looker.within == [module.LOOKS_WITHIN] and given == [left]
    assert module.LOOKS_WITHIN + evidence.ANSWER_LIMIT + module.JOURNALS_WITHIN < 30.0


@pytest.mark.parametrize("of_outputs", [True, False])
def test_terraform_plans_where_the_cluster_is_known_by_its_state(
    it: Standing, execution: Execution, monkeypatch: pytest.MonkeyPatch, of_outputs: bool
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(module, "looker_of", lambda *arguments: given.append(arguments) or it.looker)
    if of_outputs:
        (execution.run.folder / OUTPUTS).write_text("{}")

    collect(execution)

    # whose alarms the kernel's are is known by the run that made the machines, too
    assert [(run_id is None, plan is None) for *_, run_id, plan in given] == [(of_outputs, of_outputs)]


# -- the mask --------------------------------------------------------------------------------------------------------

# has something of all that JSON, URLs and base64 would write otherwise
CANARY = 'canary/with+signs=&"quotes"\\and:a song of 60 characters or more'
UNKNOWN = "sung-by-a-canary-that-nobody-knows"
PEM = f"-----BEGIN EC PRIVATE KEY-----\n{UNKNOWN}\n-----END EC PRIVATE KEY-----"


def forms(secret: str) -> list[str]:
    """How a secret may be written."""
    quoted = urllib.parse.quote(secret, safe="")
    return [secret, base64.b64encode(secret.encode()).decode().rstrip("="), quoted, json.dumps(secret)[1:-1]]


def planted(it: Standing, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Hands secrets to the workplace, and has all that is asked for a diagnosis tell them; gives what must not be told:
    each secret's every form."""
    user, host = (Keys.generate(name).private for name in ("operator", "coreos-0"))
    (it.folder / "key").write_text(user)
    handed = {"ssh_host_keys": {"coreos-0": {"private": host, "public": "-"}}, "name_key": CANARY}
    (it.root / "infra/local/run.auto.tfvars.json").write_text(json.dumps(handed))
    lines = [line for key in (user, host) for line in key.splitlines() if not line.startswith("-----")]
    told = [form for secret in (CANARY, *lines) for form in forms(secret)]
    # a journal has no texts of several lines
    line_by_line = [*told, *user.splitlines(), f"NAME_KEY={UNKNOWN}", f'export NAME_KEY="{UNKNOWN}"']
    song = "\n".join([*line_by_line, host, PEM])
    in_json = json.dumps({"all": song})
    for name, text in (("song", f"{song}\n{in_json}\n"), ("lines", "\n".join(line_by_line))):
        (it.root.parent / name).write_text(text)
    monkeypatch.setattr(evidence, "QUESTIONS", {"first": f"cat {it.root.parent}/song"})
    (it.root.parent / "bin/journalctl").write_text(f"#!/bin/sh\nsed 's/^/{NOON} /' {it.root.parent}/lines\n")
    console = {"console": ["cat", f"{it.root.parent}/song"]}
    (it.root / "infra/local/target.json").write_text(json.dumps(console))
    shown = {"outside.stranger.failed": song, "machines.coreos-0.state": in_json, "plan": tuple(line_by_line)}
    it.looker.shows = changed(ONE_IS_SILENT, {**shown, "machines.coreos-1.silent": song})
    return [*told, UNKNOWN]


def sent(execution: Execution) -> dict[str, str]:
    """Member -> text, of the archive of a diagnosis."""
    collect(execution)
    execution.run.recorder.emit("note", text=(execution.workplace.folder / "key").read_text())
    execution.close()
    with tarfile.open(archive(execution.run.folder)) as packed:
        files = {member.name: packed.extractfile(member) for member in packed if member.isfile()}
        return {name: file.read().decode() for name, file in files.items() if file}


def test_no_canary_is_found_in_what_is_sent(
    it: Standing, execution: Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = planted(it, monkeypatch)
    add_secrets(execution.run.redact, it.folder)

    members = sent(execution)

    assert {(name, form) for name, text in members.items() for form in secret if form in text} == set()
    for name in ("run.json", "events.jsonl", "evidence/coreos-0/first.txt", "snapshots/0001.json"):
        assert "[key of the name server]" in members[f"{execution.run.run_id}/{name}"], name
    assert "NAME_KEY=[masked]" in members[f"{execution.run.run_id}/evidence/coreos-0/first.txt"]
    json.loads(members[f"{execution.run.run_id}/snapshots/0001.json"])


def test_canary_is_found_in_every_channel_where_nothing_is_masked(
    it: Standing, execution: Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = planted(it, monkeypatch)
    monkeypatch.setattr(Redactor, "__call__", lambda redact, text: text)

    members = sent(execution)

    whole = "\n".join(members.values())
    assert [form for form in secret if form not in whole] == []
    found = {name.partition("/")[2] for name, text in members.items() if CANARY in text or forms(CANARY)[-1] in text}
    assert found >= {"run.json", "events.jsonl", "snapshots/0001.json", "evidence/coreos-1/console.txt"}
    assert found >= {"evidence/coreos-0/first.txt", "evidence/coreos-2/first.txt"}


# -- the archive -----------------------------------------------------------------------------------------------------


def test_what_is_sent_is_nobodys_and_nothing_but_the_masked(it: Standing, execution: Execution) -> None:
    it.looker.shows = ETCD_IS_DOWN
    folder = execution.run.folder
    for name in ("key", SHELL_STATE, "in-use", "pytest.log", "junit.xml"):
        (folder / name).write_text("not to be sent")
    collect(execution)
    execution.close()

    path = archive(folder)

    assert path == folder / ARCHIVE
    with tarfile.open(path) as packed:
        members = packed.getmembers()
    assert {(it.uid, it.gid, it.uname, it.gname) for it in members} == {(0, 0, "", "")}
    names = [member.name.removeprefix(f"{folder.name}/") for member in members]
    assert {name.partition("/")[0] for name in names} == {
        "report.html", "run.json", "events.jsonl", "snapshots", "evidence",
    }  # fmt: skip
    assert {f"evidence/{name}.txt" for name in EVERYTHING} | {"snapshots/0001.json"} <= set(names)


def test_what_there_is_not_is_not_sent(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")

    with tarfile.open(archive(tmp_path)) as packed:
        assert packed.getnames() == [f"{tmp_path.name}/run.json"]
