"""A run: one execution with a record of its own.

.runs/RUN-ID/
    events.jsonl        the event log             run.json, report.html, junit.xml   made from it
    evidence/           what was collected from the machines when something was wrong
    snapshots/          looks at the cluster: of each wait the first that showed something wrong and the last; the last
    ...                 where the run builds a cluster: the operator's workplace, see harness/runs/workplace.py
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import EnvironmentFailed, ExitStatus, HarnessError
from harness.record.log import Recorder, Redactor
from harness.seams.process import Processes, Runner
from harness.seams.wait import Waiter
from harness.setup.cache import require_space

# The operator's copy, Terraform's state, the record, and what a failure collects
RUN_BYTES = 128 * 2**20


class Run:
    """The folder and the record of one run, and the drivers that write into it."""

    def __init__(self, root: Path, run_id: str, *, again: bool = False) -> None:
        """Makes the folder, or with `again` goes on with the record in it. Raises EnvironmentFailed."""
        self.root = root
        self.run_id = run_id
        self.folder = runs_folder(root) / run_id
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            if not again:
                require_space(self.folder.parent, RUN_BYTES)
                self.folder.mkdir()
        except OSError as refused:
            raise EnvironmentFailed(f"the run folder {self.folder} cannot be made: {refused.strerror}") from refused
        # bytes of the record that were there before
        log = self.folder / "events.jsonl"
        self.began_at = log.stat().st_size if log.exists() else 0
        self.redact = Redactor()
        self.recorder = Recorder(self.folder / "events.jsonl", self.redact)
        self.process: Runner = Processes(self.recorder)
        self.waiter = Waiter(self.recorder)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Records a stage: its time, and how it ended."""
        self.recorder.emit("stage.started", stage=name)
        started = time.monotonic()
        outcome, error, status = "failed", None, int(ExitStatus.INTERNAL_ERROR)
        try:
            yield
            outcome = "passed"
        except HarnessError as failed:
            error, status = str(failed), int(failed.status)
            raise
        except OSError as failed:  # a full disk, a folder that went away
            error, status = f"{name}: {failed}", int(ExitStatus.ENVIRONMENT_FAILED)
            raise EnvironmentFailed(error) from failed
        except KeyboardInterrupt:
            outcome = "interrupted"
            raise
        finally:
            seconds = round(time.monotonic() - started, 3)
            self.recorder.emit("stage.ended", stage=name, seconds=seconds, outcome=outcome, error=error, status=status)

    def task(self, name: str, do: Callable[..., object], *arguments: object) -> None:
        """Does one thing, recorded with its time and how it ended."""
        with self.recorder.task(name):
            do(*arguments)


def runs_folder(root: Path) -> Path:
    return root / ".runs"


def new_run_id() -> str:
    """Sorts by time (UTC: zones and summer time make no difference), unique between runs that start in the same second;
    fits into container names."""
    return time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + secrets.token_hex(2)
