"""A toolchain outside of a run, for commands that are none."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from harness.record.log import Recorder
from harness.reports.display import Display
from harness.seams.process import Processes
from harness.seams.wait import Waiter
from harness.setup.cache import Cache, cache_folder
from harness.setup.toolchain import Toolchain


@contextmanager
def prepared(root: Path, tasks: Iterable[str]) -> Iterator[Toolchain]:
    """A toolchain outside of a run: shown while it is prepared, recorded nowhere that lasts."""
    with tempfile.TemporaryDirectory(prefix="platform-setup-") as scratch:
        log = Path(scratch) / "events.jsonl"
        recorder = Recorder(log)
        process = Processes(recorder)
        waiter, cache = Waiter(recorder), Cache(cache_folder())
        toolchain = Toolchain(root, cache, process, recorder, waiter, process.end_all)
        with Display(log, Console(stderr=True)):
            toolchain.prepare(tasks)
            toolchain.forget_build_files()
        yield toolchain
