"""Clusters that a run makes: `platform acceptance`, `up` and `shell`; and `down`, which removes one that was kept."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from harness.drivers.terraform import target_data
from harness.errors import EnvironmentFailed, ExitStatus, HarnessError, Misconfigured
from harness.model import tfvars
from harness.reports import verdict
from harness.runs.diagnosis import of_failed_run
from harness.runs.execution import Execution, write_record
from harness.runs.ground import make_ground
from harness.runs.interrupts import Interrupts
from harness.runs.run import Run, new_run_id
from harness.runs.standing import how_to_reach, remember
from harness.runs.workplace import EXAMPLE, MACHINES_AT_MOST, Workplace, add_secrets, in_use, targets
from harness.seams.patience import patience
from harness.setup.limits import room_for
from harness.setup.toolchain import FOR_A_RUN
from harness.text import clean

# What builds the cluster by the runbook, and nothing else
BUILDING = ("-m", "builds")
# What takes minutes: a run that nobody chose anything for does without it
NOT_SLOW, SLOW = ("-m", "not slow"), ("-m", "slow")

# Seconds in which a new cluster takes all the memory that its machines take, and those that each of them adds
SETTLED, SETTLED_EACH = 60.0, 3.0


class Acceptance:
    """One run that builds a cluster."""

    def __init__(self, root: Path, target: str, machines: int | None, command: Sequence[str]) -> None:
        self._wanted = _wanted(root, machines)  # what arguments and files refuse leaves nothing behind
        self.run = Run(root, new_run_id())
        self.workplace = Workplace(self.run, self.run.folder)
        self.execution = Execution(self.run, target, command, self.workplace)
        self._root = root
        self._target = target
        self._machines = machines

    def __call__(self, selection: Sequence[str] = (), *, keep: bool = False) -> ExitStatus:
        """Builds the cluster by the runbook, executes what is selected of it (all that is not slow, if nothing is), and
        removes the cluster, unless `keep`.

        Always ends with a written record. Whatever could not be built, and what was interrupted, is removed: nobody
        could use it.
        """
        execution = self.execution
        with Interrupts(removing(execution.console)) as interrupts:
            execution.begin(selection)
            try:
                with in_use(self.run.folder, alone=True), execution.shown():
                    reach = self._build_and_execute(interrupts, selection, keep)
            finally:
                judged = execution.close()
        print(verdict.screen(execution.document(), judged), file=sys.stderr)
        if reach:
            print(reach, file=sys.stderr)
        return judged.status

    def _build_and_execute(self, interrupts: Interrupts, selection: Sequence[str], keep: bool) -> str:
        """How to reach the cluster, where it is kept."""
        execution, built, reach = self.execution, False, ""
        try:
            with interrupts.allowed():
                try:
                    with self._ground():
                        built = True
                        execution.features(selection or NOT_SLOW)
                except HarnessError:
                    pass  # its stage has recorded it: the verdict reads it there
                if built:  # without a ground there is no cluster to ask
                    of_failed_run(execution)
        except KeyboardInterrupt:
            built = False  # recorded by its stage
        finally:
            reach = self._kept() if built and keep else ""
            if not reach:
                self._down()
        return reach

    def by_hand(self) -> ExitStatus:
        """The same ground, keys and shell for a person: what they type is theirs, and removed with the ground."""
        execution, folder = self.execution, self.run.folder
        status = ExitStatus.VERIFIED
        with Interrupts(removing(execution.console)) as interrupts:
            execution.begin()
            try:
                with in_use(folder, alone=True), execution.shown(), interrupts.allowed(), self._ground():
                    pass
                with in_use(folder, alone=False):
                    print("The runbook's lines can be typed here; `exit` removes all that they made.", file=sys.stderr)
                    open_shell(execution)
            except HarnessError as failed:
                print(clean(f"platform: {failed}"), file=sys.stderr)
                status = failed.status
            except KeyboardInterrupt:
                status = ExitStatus.INTERRUPTED
            finally:
                print("removing what was made", file=sys.stderr)
                with in_use(folder, alone=True, wait=True):  # for who checks it from elsewhere
                    self._down()
                execution.close()
        return status

    @contextmanager
    def _ground(self) -> Iterator[None]:
        """Set-up and ground; inside, this machine holds the room that the cluster takes."""
        execution = self.execution
        with contextlib.ExitStack() as stack:
            with self.run.stage("setup"):
                takes = target_takes(self._root, self._target)
                remember(execution.toolchain.cache.folder, self.run.folder)  # `clean` leaves it alone from now on
                room = stack.enter_context(room_for(self._wanted, takes))
                execution.toolchain.prepare(set_up_for(self._root, self._target))
                execution.toolchain.forget_build_files()
            with self.run.stage("ground"):
                self.workplace.open(execution.toolchain, self._target, self._machines)
                make_ground(self.workplace, execution.toolchain)
            room.ends_in((SETTLED + SETTLED_EACH * self._wanted) * patience())
            yield

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


def _wanted(root: Path, machines: int | None) -> int:
    """The number of machines: what was asked for, else what the example variables say. Raises Misconfigured for one
    that no cluster may have."""
    given = machines if machines is not None else tfvars.read((root / EXAMPLE).read_text(), EXAMPLE).get("machines")
    wanted = given if isinstance(given, int) else 1
    if not 1 <= wanted <= MACHINES_AT_MOST:
        raise Misconfigured(
            f"machines = {wanted}: a cluster has 1 to {MACHINES_AT_MOST} (fleet's authors advise no more)"
        )
    return wanted


def removing(console: Console) -> Callable[[], None]:
    """Answers a signal while what was made is being removed."""
    return lambda: console.print("removing what this run made; a moment")


def open_shell(execution: Execution) -> None:
    """bash for a person, in the operator's folder and environment; its prompt says whose cluster it is."""
    workplace = execution.workplace
    # a Ctrl-C at the prompt is the shell's own
    with Interrupts():
        prompt = {"PS1": f"{workplace.target} {workplace.run_id} \\W$ "}
        subprocess.run(["bash", "--norc"], cwd=workplace.shell.cwd, env=workplace.shell.env | prompt, check=False)


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
            with Interrupts(removing(execution.console)), execution.shown(), run.stage("teardown"):
                if target_takes(root, target):
                    execution.toolchain.prepare(("docker engine",))
                # of a run that was killed the features go on, and would make what is being removed
                run.task("end what still runs", workplace.leftovers().end_processes)
                workplace.tear_down()
                left = [f"{leak.what} {leak.name}" for leak in workplace.leftovers().leaks()]
                if left:
                    raise EnvironmentFailed(f"of run {run.run_id} remain: {', '.join(left)}")
        finally:
            run.recorder.close()
            write_record(folder)


def set_up_for(root: Path, target: str) -> tuple[str, ...]:
    """What a run on this target stands on: tasks of the toolchain."""
    known = target in targets(root)  # another one is refused where the workplace is opened
    return tuple(target_data(root / "infra" / target).get("set_up", FOR_A_RUN)) if known else FOR_A_RUN


def target_takes(root: Path, target: str) -> dict[str, int]:
    """What one machine of this target takes of the machine that the harness runs on (MiB, inotify instances, entries of
    the ARP table). For a target whose folder is gone, what one of `local` takes."""
    known = target in targets(root)
    return dict(target_data(root / "infra" / (target if known else "local")).get("takes", {}))
