"""Tasks that stand on each other: each is done once, side by side with those that do not wait for it.

What a task does is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter

from harness.errors import EnvironmentFailed, PlatformWrong
from harness.record.log import Recorder

# task -> (what it stands on, what does it; gives its outcome: done or cached)
Graph = Mapping[str, tuple[tuple[str, ...], Callable[[], str]]]


class Tasks:
    """A graph of tasks, and the record of those that are done."""

    def __init__(self, graph: Graph, recorder: Recorder, end_commands: Callable[[], None]) -> None:
        """`end_commands` ends the commands that tasks wait for, when nobody needs them any more."""
        self._graph = graph
        self._recorder = recorder
        self._end_commands = end_commands
        self._given_up = False

    def do(self, names: Iterable[str]) -> None:
        """Does these tasks and all they stand on. The first failure, or an interrupt, ends what runs beside it, and is
        raised.

        Raises EnvironmentFailed for what a task raises as PlatformWrong or OSError, and all else as it is.
        """
        order = TopologicalSorter(self._wanted(names))
        order.prepare()
        running: dict[Future[None], str] = {}
        failure: BaseException | None = None
        with ThreadPoolExecutor() as pool:
            while order.is_active() and (running or failure is None):
                if failure is None:
                    running |= {pool.submit(self._do, name): name for name in order.get_ready()}
                try:
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                except KeyboardInterrupt:
                    self._give_up()
                    raise
                for future in done:
                    order.done(running.pop(future))
                    if failure is None and (failure := future.exception()) is not None:
                        self._give_up()
        if failure is not None:
            raise failure

    def _wanted(self, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """These tasks and all they stand on -> what each stands on."""
        wanted: dict[str, tuple[str, ...]] = {}
        queue = list(names)
        while queue:
            name = queue.pop()
            wanted[name] = self._graph[name][0]
            queue += [below for below in wanted[name] if below not in wanted]
        return wanted

    def _give_up(self) -> None:
        """Nobody needs any more what is still being made."""
        self._given_up = True
        self._end_commands()

    def _do(self, name: str) -> None:
        with self._recorder.task(name) as task:
            try:
                task.outcome = self._graph[name][1]()
            except KeyboardInterrupt:
                task.outcome = "interrupted"
                raise
            except (PlatformWrong, OSError) as failed:
                if self._given_up:
                    task.outcome = "interrupted"
                    raise
                # nothing of the platform runs yet: a command that fails here is this machine's or the network's fault
                raise EnvironmentFailed(f"set-up of {name}: {failed}") from failed
