"""Diagnosis: what is wrong with a cluster, and all evidence of it. A failed run ends with one; `platform diagnose` is
nothing else. It changes nothing, and takes no longer than it says, in whatever state the cluster is."""

from __future__ import annotations

import tarfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.drivers.cluster import Cluster, Connections
from harness.drivers.terraform import NothingApplied, Outputs, target_data
from harness.errors import AnswerNotUnderstood, EnvironmentFailed, ExitStatus, HarnessError
from harness.reports import verdict
from harness.reports.measures import applies
from harness.rules.finding import Finding, Subject
from harness.rules.judging import Cause
from harness.rules.repairs import repair
from harness.runs import evidence
from harness.runs.execution import Execution
from harness.runs.progress import Progress, last_green, looker_of
from harness.runs.watch import Watch, emit_causes
from harness.runs.workplace import OUTPUTS, builds
from harness.seams.patience import patience

# Seconds for all of it, of which the looks may take the first; the last are for the journals, and for writing it down
WITHIN, LOOKS_WITHIN, JOURNALS_WITHIN = 30.0, 12.0, 3.0
# What goes to somebody else of a run folder: all of it was masked when it was written
SENT = ("report.html", "run.json", "events.jsonl", "snapshots", "evidence")


def of_failed_run(execution: Execution) -> None:
    """Evidence of what a run found wrong, or of why it could not tell. Its own failure must not hide that one."""
    about_it = (ExitStatus.PLATFORM_WRONG, ExitStatus.ENVIRONMENT_FAILED, ExitStatus.INTERNAL_ERROR)
    if execution.judged().status not in about_it or not execution.workplace.shell_state.exists():
        return
    try:
        with execution.run.stage("evidence"):
            collect(execution)
    except HarnessError as failed:
        execution.run.recorder.emit("note", text=f"the evidence is not complete: {failed}")


def archive(folder: Path) -> Path:
    """Packs what can be sent to somebody into one file of a run folder; gives its path."""
    path = folder / verdict.ARCHIVE

    def nobodys(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    with tarfile.open(path, "w:gz", compresslevel=6) as packed:
        for name in SENT:
            if (folder / name).exists():
                packed.add(folder / name, f"{folder.name}/{name}", filter=nobodys)
    return path


def collect(execution: Execution) -> None:
    """The causes of what is wrong, where nobody has named them yet, and the evidence. Changes nothing; takes WITHIN
    seconds at most."""
    ends = time.monotonic() + WITHIN * patience() - JOURNALS_WITHIN
    target = target_data(execution.workplace.target_folder)
    outputs = _outputs(execution, target)
    if outputs is None:
        return
    run, console = execution.run, target.get("console", [])
    with Connections(run.recorder) as connections:
        document = execution.document()
        causes = document["causes"]
        # where somebody looked and found nothing, what is there now is of a later time
        if not causes and not document["causes_look"] and not _unmade(execution):
            causes = _looked(execution, Cluster(lambda: outputs, connections, run.process))
        looks = execution.document()["looks"]
        silent = looks[-1]["silent"] if looks else []
        machines = connections.machines(outputs)
        machines.avoid(silent)
        left = max((ends - time.monotonic()) / patience(), evidence.ANSWER_LIMIT + 1)
        evidence.collect(
            machines,
            run.folder / "evidence",
            run.recorder,
            run.process,
            console,
            execution.workplace.run_id,
            silent,
            min(left, evidence.COLLECTED_WITHIN),
        )
        if causes:
            moment = verdict.moment(causes[0]["finding"])
            lines = evidence.journal_around(machines, moment, silent, JOURNALS_WITHIN)
            run.recorder.emit("journal", lines=lines)


def _outputs(execution: Execution, target: dict[str, Any]) -> Outputs | None:
    """What the target says of itself. Where it says nothing, that is the cause."""
    try:
        if target.get("takes"):
            execution.toolchain.engine.require_answer()
        outputs = execution.outputs()
    except EnvironmentFailed as failed:
        expected = "a Docker Engine that answers"
        _emit(execution, "engine-answers", "environment", Subject("this machine"), expected, failed, "docker info")
        return None
    except (NothingApplied, AnswerNotUnderstood) as failed:
        outputs, seen = None, str(failed)
    else:
        seen = "Terraform has no state: nothing was applied"
    if outputs is None:
        paste = "terraform -chdir=infra/$TARGET plan -var-file=../../terraform.tfvars"
        _emit(execution, "cluster-is-made", "provision", Subject("cluster"), "a cluster that was applied", seen, paste)
    return outputs


def _emit(
    execution: Execution, rule: str, layer: str, subject: Subject, expected: str, seen: object, paste: str
) -> None:
    finding = Finding(rule, layer, subject, expected, str(seen), time.time(), paste=paste, repair=repair(rule, subject))
    emit_causes(execution.run.recorder, [Cause(finding)], 0)


def _unmade(execution: Execution) -> bool:
    """Whether this run began to make a cluster, and never ended it: why, it was told, and a look would tell of all that
    is not there yet, as if it had been."""
    if not builds(execution.run.folder, execution.workplace.folder):
        return False
    applied = [command["status"] == 0 for command in execution.document()["commands"] if applies(command)]
    return bool(applied) and not any(applied)


def _looked(execution: Execution, cluster: Cluster) -> list[dict[str, Any]]:
    """The causes of what is wrong, as looks show it now."""
    run, workplace = execution.run, execution.workplace
    typed = [command["line"] for command in execution.document()["commands"] if command["typed"]]
    progress = Progress(typed, builds=builds(run.folder, workplace.folder))
    run_id = None if (run.folder / OUTPUTS).exists() else workplace.run_id
    looker = looker_of(cluster, progress, workplace.shell, run.process, run_id, _plan(execution))
    taken = max((look["number"] for look in execution.document()["looks"]), default=0)
    since = last_green(workplace.folder)
    Watch(lambda: looker, run.recorder, run.folder, since=since, taken=taken).diagnose(LOOKS_WITHIN)
    return list(execution.document()["causes"])


def _plan(execution: Execution) -> Any:
    if (execution.run.folder / OUTPUTS).exists():
        return None

    def changed() -> Iterable[str]:
        return execution.workplace.terraform().second_plan().changed

    return changed
