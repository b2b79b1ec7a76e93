"""`platform acceptance`: set up, build a cluster, execute the runbook on it, judge, tear down."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console

from harness import evidence, runbook, verdict
from harness.cache import Cache, cache_folder
from harness.display import Display
from harness.engine import Engine
from harness.errors import EnvironmentFailed, ExitStatus, HarnessError
from harness.ground import make_ground
from harness.junit import junit_xml
from harness.machines import Machines
from harness.process import Processes
from harness.record import fold, read_events
from harness.report import render_html
from harness.run import Run, new_run_id
from harness.shell import OperatorShell
from harness.terraform import Terraform, target_data
from harness.toolchain import FOR_A_RUN, Toolchain
from harness.units import read_units

# pytest's own exit statuses: all passed, some failed, nothing collected
ANSWERS_OF_PYTEST = (0, 1, 5)
PATIENCE = 30.0


class Acceptance:
    """One acceptance run."""

    def __init__(self, root: Path, target: str, command: Sequence[str], selection: Sequence[str] = ()) -> None:
        self.run = Run(root, new_run_id(), target)
        self._selection = list(selection)
        self._console = Console(stderr=True)
        # a starter of its own: an interrupt ends set-up's commands for good, and those of the teardown must still start
        process, recorder = Processes(self.run.recorder), self.run.recorder
        engine = Engine(process, recorder, self.run.waiter)
        self.toolchain = Toolchain(root, Cache(cache_folder()), process, recorder, engine, process.end_all)
        self._shell: OperatorShell | None = None
        readme = runbook.commands_of_readme((root / "README.md").read_text())
        self.run.recorder.emit(
            "run.started",
            run_id=self.run.run_id,
            target=target,
            command=list(command),
            folder=os.path.relpath(self.run.folder),
            readme=readme,
            selection=self._selection or None,
        )
        began = os.environ.get("PLATFORM_BEGAN")
        if began:
            self.run.recorder.emit("run.facts", **{"seconds before the record": f"{time.time() - float(began):.2f}"})

    def __call__(self) -> ExitStatus:
        """The whole run; always ends with the teardown and a written record."""
        display = Display(self.run.folder / "events.jsonl", self._console)
        display.start()
        try:
            with _signals_interrupt():
                try:
                    self._up()
                    self._runbook()
                except (HarnessError, KeyboardInterrupt):
                    pass  # its stage has recorded it: the verdict reads it there
                if self._is_wrong():
                    self._collect()
        except KeyboardInterrupt:
            pass  # a second one, while evidence was collected: recorded by that stage
        finally:
            with _signals_ignored(self._console):
                self._down()
                display.stop()
                status = self._close()
        return status

    def by_hand(self) -> ExitStatus:
        """The same ground, keys and shell for a person: what they type is theirs, and removed with the ground."""
        display = Display(self.run.folder / "events.jsonl", self._console)
        status = ExitStatus.VERIFIED
        try:
            with _signals_interrupt(), display:
                self._up()
            assert self._shell is not None
            print("The runbook's lines can be typed here; `exit` removes all that they made.", file=sys.stderr)
            # a Ctrl-C at the prompt is the shell's own
            with _signals_ignored(self._console, quiet=True):
                subprocess.run(["bash", "--norc"], cwd=self.run.operators, env=self._shell.env, check=False)
        except HarnessError as failed:
            print(f"platform: {failed}", file=sys.stderr)
            status = failed.status
        except KeyboardInterrupt:
            status = ExitStatus.INTERRUPTED
        finally:
            with _signals_ignored(self._console):
                print("removing what was made", file=sys.stderr)
                self._down()
        return status

    # -- stages --------------------------------------------------------------------------------------------------

    def _up(self) -> None:
        with self.run.stage("setup"):
            self.toolchain.prepare(FOR_A_RUN)
            self.toolchain.forget_build_files()
        with self.run.stage("ground"):
            self._shell = self.run.open_shell(self.toolchain)
            make_ground(self.run, self.toolchain, self._shell)

    def _runbook(self) -> None:
        with self.run.stage("runbook"), (self.run.folder / "pytest.log").open("w") as log:
            pytest = subprocess.Popen(
                [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *(self._selection or ["features"])],
                cwd=self.run.root,
                env={**os.environ, "PLATFORM_FOLDER": str(self.run.folder), "PLATFORM_RUN": self.run.run_id},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status = pytest.wait()
            except KeyboardInterrupt:
                _end(pytest)
                raise
            if status not in ANSWERS_OF_PYTEST:
                tail = (self.run.folder / "pytest.log").read_text().strip().splitlines()[-3:]
                raise HarnessError(f"pytest ended with status {status}: {' / '.join(tail)} (see pytest.log)")

    def _is_wrong(self) -> bool:
        return verdict.judge(self._document()).status not in (ExitStatus.VERIFIED, ExitStatus.INTERRUPTED)

    def _collect(self) -> None:
        """Evidence of what is wrong. Its own failure must not hide the one that it is collected for."""
        if self._shell is None:
            return
        try:
            with self.run.stage("evidence"):
                self.toolchain.engine.require_answer()
                target = Terraform(self.run.process, self.run.target_folder, self._shell.env)
                if not target.has_state():
                    return
                machines = Machines(target.outputs(), self.run.recorder)
                console = target_data(self.run.target_folder).get("console", [])
                evidence.collect(
                    machines,
                    self.run.folder / "evidence",
                    self.run.recorder,
                    self.run.process,
                    console,
                    self.run.run_id,
                )
                units = [
                    unit.name for unit in read_units(self.run.operators / "units", self.run.operators / "units/app")
                ]
                evidence.record(self.run.recorder, evidence.diagnose(machines, units))
                machines.close()
        except EnvironmentFailed as failed:
            finding = evidence.Finding("environment", "this machine", str(failed), "docker info")
            evidence.record(self.run.recorder, [finding])
        except HarnessError as failed:
            self.run.recorder.emit("note", text=f"the evidence is not complete: {failed}")

    def _down(self) -> None:
        # what failed is in the record, and the verdict reads it there
        with contextlib.suppress(HarnessError), self.run.stage("teardown"):
            self.run.tear_down(self._shell.env if self._shell else {**os.environ})

    # -- what remains --------------------------------------------------------------------------------------------

    def _document(self) -> dict[str, object]:
        return fold(read_events(self.run.folder / "events.jsonl"))

    def _close(self) -> ExitStatus:
        judged = self._judged()
        self.run.recorder.emit("run.ended", status=int(judged.status), headline=judged.headline)
        self.run.recorder.close()
        try:
            document = write_record(self.run.folder)
        except OSError as refused:
            self.run.recorder.lost = refused.strerror or str(refused)
            document = self._document()
        judged = self._judged()
        print(verdict.screen(document, judged), file=sys.stderr)
        return judged.status

    def _judged(self) -> verdict.Verdict:
        """The verdict of the record; of one that could not be written whole nothing can be said."""
        judged = verdict.judge(self._document())
        lost = self.run.recorder.lost
        failed = ExitStatus.ENVIRONMENT_FAILED
        headline = f"The environment failed: the record could not be written ({lost})"
        return dataclasses.replace(judged, status=failed, headline=headline) if lost else judged


def write_record(folder: Path) -> dict[str, object]:
    """Writes run.json, report.html and junit.xml of a run folder from its event log."""
    document = fold(read_events(folder / "events.jsonl"))
    (folder / "run.json").write_text(json.dumps(document, indent=1, ensure_ascii=False))
    (folder / "report.html").write_text(render_html(document))
    (folder / "junit.xml").write_text(junit_xml(document))
    return document


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupts pytest, so that it ends its step and its commands in order; then insists."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP interrupt as Ctrl-C does. SIGINT too where a script started us with it ignored: pytest
    inherits that, and would then not hear that it should end."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _signals_ignored(console: Console, quiet: bool = False) -> Iterator[None]:
    """During the teardown a signal is answered with a line: what was made is removed first."""

    def answer(number: int, frame: FrameType | None) -> None:
        if not quiet:
            console.print("removing what this run made; a moment")

    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, answer) for number in watched}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
