"""`platform check` and `nightly`: what holds on a standing cluster. Unless it is asked to, nothing of it is changed."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness import files
from harness.drivers.shell import OperatorShell
from harness.drivers.terraform import Outputs
from harness.errors import ExitStatus, HarnessError, Misconfigured
from harness.record.log import lasted
from harness.reports import verdict
from harness.runs.acceptance import open_shell
from harness.runs.diagnosis import of_failed_run
from harness.runs.execution import Execution
from harness.runs.interrupts import Interrupts
from harness.runs.progress import GREEN
from harness.runs.run import Run, new_run_id
from harness.runs.workplace import IN_USE, OUTPUTS, Workplace, add_secrets, in_use, known_target
from harness.seams.surroundings import cleaned
from harness.text import counted, one_line, took


class Check:
    """One run on a cluster that stands already."""

    def __init__(self, root: Path, command: Sequence[str], workplace: Path | None = None) -> None:
        self.run = Run(root, new_run_id())
        self.workplace = Workplace(self.run, workplace or self.run.folder)
        self._command = command
        self.outputs_only = workplace is None

    @classmethod
    def of_outputs(
        cls,
        root: Path,
        command: Sequence[str],
        target: str,
        outputs: Path,
        key: Path | None,
        *,
        keyless: bool = False,
    ) -> Check:
        """On the cluster that a target's outputs tell of (a file made by `terraform output -json`), with the SSH key in
        a file or in the person's agent; without either, where it is `keyless`. Raises Misconfigured for what cannot be
        used."""
        known_target(root, target)
        text = files.read(outputs, if_missing="make it with `terraform output -json`")
        try:
            raw = {name: output["value"] for name, output in json.loads(text).items()}
            cluster = Outputs.read(raw)
            if not cluster.way_in:
                raise ValueError(f"the entry point {cluster.entry_point} is no machine's address")
        except (HarnessError, ValueError, TypeError, KeyError, AttributeError) as wrong:
            raise Misconfigured(f"{outputs} is not what `terraform output -json` prints: {wrong}") from wrong
        private = None if key is None else files.read(key, if_missing="give the operator's private SSH key")
        if private is None and "SSH_AUTH_SOCK" not in os.environ and not keyless:
            raise Misconfigured(
                "there is no SSH key to reach the machines with: give --key FILE, or start an ssh-agent"
            )
        check = cls(root, command)
        place = check.workplace
        files.put(place.folder / OUTPUTS, json.dumps(raw))
        environment = {**cleaned(os.environ), "TARGET": target, "PLATFORM_RUN": check.run.run_id}
        OperatorShell.open(check.run.process, place.shell_state, root, environment)
        if private is not None:
            place.put_key(private)
            usable = ["ssh-keygen", "-y", "-P", "", "-f", "/dev/stdin"]
            if check.run.process.run(usable, ok=None, stdin=private, within=10).status != 0:
                place.forget()
                raise Misconfigured(
                    f"{key} is no private SSH key without a passphrase: give one, or start an ssh-agent"
                )
        return check

    def __call__(
        self, selection: Sequence[str] = (), *, mutates: bool = False, quiet: bool = False, as_json: bool = False
    ) -> ExitStatus:
        """Executes what is selected, leaves out what changes something (unless it `mutates`), and judges.

        Prints the verdict; `quiet`, one line when all is well; `as_json`, the same for programs.
        """
        execution, judged = self._executed(selection, mutates=mutates, quiet=quiet)
        document = execution.document()
        # of outputs the workplace is this run's own: no other one looks there
        if judged.status is ExitStatus.VERIFIED and not selection and not self.outputs_only:
            (self.workplace.folder / GREEN).touch()
        if as_json:
            print(json.dumps(verdict.for_programs(document, judged), indent=1))
        elif quiet and judged.status is ExitStatus.VERIFIED:
            report = f"{os.path.relpath(self.run.folder)}/report.html"
            summary = f"{counted(judged.counts)} in {took(lasted(document, document))}"
            cluster = "cluster of the outputs" if self.outputs_only else f"cluster {self.workplace.run_id}"
            print(f"{one_line(judged.headline)} ({summary}, {cluster}): {report}")
        else:
            print(verdict.screen(document, judged), file=sys.stderr)
        return judged.status

    def _executed(self, selection: Sequence[str], *, mutates: bool, quiet: bool) -> tuple[Execution, verdict.Verdict]:
        run, workplace = self.run, self.workplace
        add_secrets(run.redact, workplace.folder)
        execution = Execution(run, workplace.target, self._command, workplace)
        # the cluster's own folder is held already; of outputs there is none, and `clean` is to leave this one alone
        held = in_use(run.folder, alone=True) if self.outputs_only else contextlib.nullcontext()
        with Interrupts() as interrupts, held:
            execution.begin(selection)
            try:
                with execution.shown(quiet), interrupts.allowed():
                    try:
                        with run.stage("setup"):
                            workplace.unlock()
                            execution.undo_left_over()
                        execution.features(selection, read_only=not mutates)
                    except HarnessError:
                        pass  # its stage has recorded it: the verdict reads it there
                    of_failed_run(execution)
            except KeyboardInterrupt:
                pass  # recorded by its stage
            finally:
                workplace.lock()
                if self.outputs_only:
                    workplace.forget()
                judged = execution.close()
                if self.outputs_only:
                    (run.folder / IN_USE).unlink()
        return execution, judged


def check(root: Path, folder: Path, selection: Sequence[str], *, mutates: bool) -> ExitStatus:
    """What is selected of the runbook, on the cluster of a run."""
    with in_use(folder, alone=mutates):
        return Check(root, ["check", *selection], folder)(selection, mutates=mutates)


def nightly(root: Path, folder: Path, *, as_json: bool = False) -> ExitStatus:
    """All that changes nothing, on the cluster of a run."""
    with in_use(folder, alone=False):
        return Check(root, ["nightly"], folder)(quiet=True, as_json=as_json)


def join(root: Path, folder: Path) -> None:
    """A shell for a person on the cluster of a run; at its end the cluster stays."""
    with on_cluster(root, folder, ["shell"]) as execution:
        print(f"The operator's shell of run {folder.name}; at its `exit` the cluster stays.", file=sys.stderr)
        open_shell(execution)


@contextmanager
def on_cluster(root: Path, folder: Path, command: Sequence[str]) -> Iterator[Execution]:
    """The cluster of a run for something that is no verification, with the operator's key in an agent."""
    with in_use(folder, alone=False):
        run = Run(root, new_run_id())
        workplace = Workplace(run, folder)
        add_secrets(run.redact, folder)
        execution = Execution(run, workplace.target, command, workplace)
        execution.begin()
        try:
            workplace.unlock()
            yield execution
        finally:
            workplace.lock()
            run.recorder.close()
