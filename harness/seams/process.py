"""The seam to external commands: every program the harness starts, it starts here.

One function, `Runner.run`, takes an argv and gives a `Result`; argv, working folder, names of added environment
variables, start, end, both streams and status are recorded. Tests put another Runner in the place of `Processes`.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import CommandFailed, Misconfigured, PlatformWrong
from harness.record.log import Recorder
from harness.seams.patience import patience
from harness.seams.surroundings import cleaned

# The record keeps this many characters of a stream: its beginning and its end.
STREAM_LIMIT = 64 * 1024
# Seconds for a command to end by itself when it is interrupted
INTERRUPT_LIMIT = 10.0


@dataclass(frozen=True)
class Result:
    """What a command gave: its argv, exit status (negative: ended by that signal), both streams, seconds."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str
    seconds: float

    def expect(self, *statuses: int) -> Result:
        """Itself, if the status is one of `statuses`; raises CommandFailed otherwise."""
        if self.status not in (statuses or (0,)):
            raise CommandFailed(self.argv, self.status, self.stdout, self.stderr)
        return self


@dataclass(frozen=True)
class Call:
    """How a command is started: see `Runner.run`."""

    argv: tuple[str, ...]
    cwd: Path | None
    env: Mapping[str, str] | None
    add_env: Mapping[str, str] | None
    stdin: str | None
    within: float
    line: str | None

    @property
    def shown(self) -> str:
        """What a person would paste."""
        return self.line or shlex.join(self.argv)

    @property
    def environment(self) -> dict[str, str]:
        return {**(cleaned(os.environ) if self.env is None else self.env), **(self.add_env or {})}

    def result(self, status: int, stdout: str, stderr: str, seconds: float) -> Result:
        return Result(self.argv if self.line is None else (self.line,), status, stdout, stderr, seconds)


class Runner(ABC):
    """What runs commands."""

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        add_env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        within: float = 600,
        line: str | None = None,
        ok: Collection[int] | None = (0,),
    ) -> Result:
        """Runs `argv` to its end, for at most `within` seconds.

        `env` replaces the environment (this process's, without what steers), `add_env` adds to it. `line` is the
        runbook's line that is typed, where it is one. `ok` lists the statuses that are answers (None: all). The command
        gets a process group of its own, so that a Ctrl-C at the terminal reaches only the harness, which then ends the
        group in order.

        Raises CommandFailed for another status, PlatformWrong when the time ran out, Misconfigured when there is no
        such program.
        """
        result = self._execute(Call(tuple(argv), cwd, env, add_env, stdin, within, line))
        return result if ok is None else result.expect(*ok)

    @abstractmethod
    def _execute(self, call: Call) -> Result: ...

    @abstractmethod
    def end_all(self) -> None:
        """Ends every command that runs now, in whichever thread, and starts no further one, ever."""


class Processes(Runner):
    """Runs commands and records them."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._running: set[subprocess.Popen[str]] = set()
        self._ending = False
        # held while a command is started: it is either seen by `end_all`, or not started
        self._starting = threading.Lock()

    def end_all(self) -> None:
        """Ends every command that runs now, in whichever thread, and starts no further one, ever: after an interrupt
        nobody waits for them. One that does not heed SIGINT is killed."""
        with self._starting:
            self._ending = True
            running = list(self._running)
        for process in running:
            _signal_group(process, signal.SIGINT)
        insisting = threading.Timer(INTERRUPT_LIMIT, self._kill_running)
        insisting.daemon = True
        insisting.start()

    def _kill_running(self) -> None:
        for process in list(self._running):
            _signal_group(process, signal.SIGKILL)

    def _short(self, stream: str) -> str:
        """What the record keeps of a stream; redacted first, for the cut could fall into a secret."""
        stream = self._recorder.redact(stream)
        if len(stream) <= STREAM_LIMIT:
            return stream
        half = STREAM_LIMIT // 2
        return f"{stream[:half]}\n[... {len(stream) - STREAM_LIMIT} characters left out ...]\n{stream[-half:]}"

    def _execute(self, call: Call) -> Result:
        within, event = call.within * patience(), self._recorder.new_id("command")
        started = time.monotonic()
        status: int | str = "interrupted"
        stdout = stderr = ""
        process = self._start(event, call)
        try:
            stdout, stderr = process.communicate(call.stdin, timeout=within)
            status = process.returncode
        except subprocess.TimeoutExpired:
            stdout, stderr = _end_group(process)
            status = f"no end within {within:g} s"
        except BaseException:
            stdout, stderr = _end_group(process)
            raise
        finally:
            self._running.discard(process)
            seconds = round(time.monotonic() - started, 3)
            short = {"stdout": self._short(stdout), "stderr": self._short(stderr)}
            self._recorder.emit("command.ended", id=event, status=status, seconds=seconds, **short)
        if isinstance(status, str):
            raise _without_end(call.shown, within, stdout, stderr)
        return call.result(status, stdout, stderr, seconds)

    def _start(self, event: str, call: Call) -> subprocess.Popen[str]:
        """The process, recorded and known to `end_all`. Raises Misconfigured when it cannot be started."""
        argv, cwd = call.argv, call.cwd
        try:
            with self._starting:
                if self._ending:
                    raise KeyboardInterrupt
                self._recorder.emit(
                    "command.started",
                    id=event,
                    argv=list(argv) if call.line is None else None,
                    line=call.line,
                    cwd=str(cwd or Path.cwd()),
                    environment=sorted(call.add_env or ()),
                    typed=call.line is not None,
                )
                process = _opened(argv, cwd, call.environment, call.stdin is not None)
                self._running.add(process)
                return process
        except OSError as missing:
            nothing = {"seconds": 0, "stdout": "", "stderr": str(missing)}
            self._recorder.emit("command.ended", id=event, status="not found", **nothing)
            needed = f"(needed for `{call.shown}`)"
            if cwd is not None and not cwd.is_dir():
                raise Misconfigured(f"{cwd} is no folder {needed}") from missing
            if isinstance(missing, FileNotFoundError):
                raise Misconfigured(f"{argv[0]} is not installed or not on PATH {needed}") from missing
            raise Misconfigured(f"{argv[0]} cannot be run: {missing.strerror} {needed}") from missing


def _opened(argv: Sequence[str], cwd: Path | None, env: Mapping[str, str], reads: bool) -> subprocess.Popen[str]:
    return subprocess.Popen(
        argv,
        cwd=cwd,
        env=env,
        stdin=subprocess.PIPE if reads else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )


def _without_end(shown: str, within: float, stdout: str, stderr: str) -> PlatformWrong:
    last = (stderr.strip() or stdout.strip() or "no output").splitlines()[-1]
    return PlatformWrong(
        f"command `{shown}` did not end within {within:g} s: {last}",
        expected=f"an end within {within:g} s",
        seen=f"still running; last line: {last}",
        paste=shown,
    )


def _end_group(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Ends a command and its children: first asks (Terraform then releases its lock), then insists."""
    streams = ("", "")
    for number, seconds in ((signal.SIGINT, INTERRUPT_LIMIT), (signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        _signal_group(process, number)
        try:
            streams = process.communicate(timeout=seconds)
            break
        except subprocess.TimeoutExpired:
            continue
    # children that outlived the command and hold none of its streams
    _signal_group(process, signal.SIGKILL)
    return streams


def _signal_group(process: subprocess.Popen[str], number: int) -> None:
    # it ended meanwhile, or it is root's (sudo), which nobody else may signal and which has its own end
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
