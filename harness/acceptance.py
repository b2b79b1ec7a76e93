"""Clusters that a run makes: `platform acceptance`, `up` and `shell`; and `down`, which removes one that was kept."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness import tfvars, verdict
from harness.errors import EnvironmentFailed, ExitStatus, HarnessError
from harness.execution import Execution, signals_ignored, signals_interrupt, write_record
from harness.ground import make_ground
from harness.limits import room_for
from harness.run import Run, new_run_id
from harness.standing import how_to_reach
from harness.terraform import target_data
from harness.toolchain import FOR_A_RUN
from harness.workplace import EXAMPLE, MACHINES_AT_MOST, Workplace, add_secrets, in_use, targets

# `up` builds the cluster: it executes the scenarios that type the runbook's commands
BUILDING = ("-m", "mutates and not services and not machines and not recovery")


class Acceptance:
    """One run that builds a cluster."""

    def __init__(self, root: Path, target: str, machines: int | None, command: Sequence[str]) -> None:
        self.run = Run(root, new_run_id())
        self.workplace = Workplace(self.run, self.run.folder)
        self.execution = Execution(self.run, target, command, self.workplace)
        self._root = root
        self._target = target
        self._machines = machines

    def __call__(self, selection: Sequence[str] = (), *, keep: bool = False) -> ExitStatus:
        """Builds the cluster by the runbook, executes what is selected of it, and removes the cluster, unless `keep`.

        Always ends with a written record. Whatever could not be built, and what was interrupted, is removed: nobody
        could use it.
        """
        execution = self.execution
        execution.begin(selection)
        try:
            with in_use(self.run.folder, alone=True), execution.shown():
                reach = self._build_and_execute(selection, keep)
        finally:
            judged = execution.close()
        print(verdict.screen(execution.document(), judged), file=sys.stderr)
        if reach:
            print(reach, file=sys.stderr)
        return judged.status

    def _build_and_execute(self, selection: Sequence[str], keep: bool) -> str:
        """How to reach the cluster, where it is kept."""
        execution, built, reach = self.execution, False, ""
        try:
            with signals_interrupt():
                try:
                    with self._ground():
                        built = True
                        execution.features(selection)
                except HarnessError:
                    pass  # its stage has recorded it: the verdict reads it there
                execution.collect_if_wrong()
        except KeyboardInterrupt:
            built = False  # recorded by its stage
        finally:
            with signals_ignored(execution.console):
                reach = self._kept() if built and keep else ""
                if not reach:
                    self._down()
        return reach

    def by_hand(self) -> ExitStatus:
        """The same ground, keys and shell for a person: what they type is theirs, and removed with the ground."""
        console = self.execution.console
        self.execution.begin()
        status = ExitStatus.VERIFIED
        try:
            with in_use(self.run.folder, alone=True), signals_interrupt(), self.execution.shown(), self._ground():
                pass
            with in_use(self.run.folder, alone=False):
                print("The runbook's lines can be typed here; `exit` removes all that they made.", file=sys.stderr)
                open_shell(self.execution)
        except HarnessError as failed:
            print(f"platform: {failed}", file=sys.stderr)
            status = failed.status
        except KeyboardInterrupt:
            status = ExitStatus.INTERRUPTED
        finally:
            with signals_ignored(console):
                print("removing what was made", file=sys.stderr)
                with in_use(self.run.folder, alone=True, wait=True):  # for who checks it from elsewhere
                    self._down()
                self.execution.close()
        return status

    @contextmanager
    def _ground(self) -> Iterator[None]:
        """Set-up and ground; inside, this machine holds the room that the cluster takes."""
        execution = self.execution
        with contextlib.ExitStack() as stack:
            with self.run.stage("setup"):
                execution.toolchain.prepare(FOR_A_RUN)
                execution.toolchain.forget_build_files()
            with self.run.stage("ground"):
                takes = target_takes(self._root, self._target)
                stack.enter_context(room_for(self._wanted(), MACHINES_AT_MOST, takes))
                self.workplace.open(execution.toolchain, self._target, self._machines)
                make_ground(self.workplace, execution.toolchain)
            yield

    def _wanted(self) -> int:
        """The number of machines: what was asked for, else what the example variables say."""
        if self._machines is not None:
            return self._machines
        said = tfvars.read((self._root / EXAMPLE).read_text(), EXAMPLE).get("machines")
        return said if isinstance(said, int) else 1

    def _kept(self) -> str:
        """How to reach the cluster; empty when there is none."""
        try:
            outputs = self.execution.outputs()
            if outputs is None:
                return ""
            self.workplace.keep(outputs)
        except (HarnessError, OSError) as failed:
            self.run.recorder.emit("note", text=f"the cluster is not kept: {failed}")
            return ""
        return how_to_reach(self.run.folder, outputs, self.workplace.environment)

    def _down(self) -> None:
        # what failed is in the record, and the verdict reads it there
        with contextlib.suppress(HarnessError), self.run.stage("teardown"):
            self.workplace.tear_down()


def open_shell(execution: Execution) -> None:
    """bash for a person, in the operator's folder and environment."""
    shell = execution.workplace.shell
    # a Ctrl-C at the prompt is the shell's own
    with signals_ignored(execution.console, quiet=True):
        subprocess.run(["bash", "--norc"], cwd=shell.cwd, env=shell.env, check=False)


def down(root: Path, folder: Path) -> None:
    """Removes a cluster that was kept, or what a run left that was killed; its record goes on.

    Raises EnvironmentFailed when something of it remains.
    """
    with in_use(folder, alone=True):
        run = Run(root, folder.name, again=True)
        workplace = Workplace(run, folder)
        add_secrets(run.redact, folder)
        target = workplace.target if workplace.shell_state.exists() else ""
        execution = Execution(run, target, ["down"], workplace)
        try:
            with execution.shown(), signals_ignored(execution.console), run.stage("teardown"):
                if target_takes(root, target):
                    execution.toolchain.prepare(("docker engine",))
                # of a run that was killed the features go on, and would make what is being removed
                run.task("end what still runs", workplace.inventory().end_processes)
                workplace.tear_down()
                left = [f"{leak.what} {leak.name}" for leak in workplace.inventory().leaks()]
                if left:
                    raise EnvironmentFailed(f"of run {run.run_id} remain: {', '.join(left)}")
        finally:
            run.recorder.close()
            write_record(folder)


def target_takes(root: Path, target: str) -> dict[str, int]:
    """What a machine of this target takes of the machine that the harness runs on; a target that nobody knows any more
    is taken for one that does."""
    known = target in targets(root)
    return dict(target_data(root / "infra" / (target if known else "local")).get("takes", {}))
