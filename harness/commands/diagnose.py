"""`platform diagnose`: what is wrong with a standing cluster, what to do, and all evidence of it in one file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from harness.errors import ExitStatus, HarnessError
from harness.reports import verdict
from harness.runs.check import Check
from harness.runs.diagnosis import archive, collect
from harness.runs.execution import Execution
from harness.runs.faults import is_left_over
from harness.runs.interrupts import Interrupts
from harness.runs.workplace import add_secrets, in_use


def diagnose(root: Path, folder: Path, *, as_json: bool = False) -> ExitStatus:
    """What is wrong with the cluster of a run."""
    with in_use(folder, alone=False):
        return diagnosed(Check(root, ["diagnose"], folder), as_json=as_json)


def diagnosed(check: Check, *, as_json: bool = False) -> ExitStatus:
    """Looks at the cluster of a check, judges it, collects all evidence, and prints what is wrong and what to do."""
    run, workplace = check.run, check.workplace
    add_secrets(run.redact, workplace.folder)
    execution = Execution(run, workplace.target, ["diagnose"], workplace)
    with Interrupts() as interrupts:
        execution.begin()
        if is_left_over(workplace.folder):
            run.recorder.emit("note", text="a drill was killed and left a fault behind: the next nightly undoes it")
        try:
            with interrupts.allowed(), run.stage("diagnosis"):
                workplace.unlock()
                collect(execution)
        except (KeyboardInterrupt, HarnessError):
            pass  # recorded by its stage: the verdict reads it there
        finally:
            run.process.end_all()  # such as a plan that was not waited for
            workplace.lock()
            if check.outputs_only:
                workplace.forget()
            judged = execution.close()
    document = execution.document()
    archive(run.folder)
    if as_json:
        print(json.dumps(verdict.for_programs(document, judged), indent=1))
    else:
        print(verdict.screen(document, judged), file=sys.stderr)
    return judged.status
