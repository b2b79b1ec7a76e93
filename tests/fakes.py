"""Stand-ins for what lies beyond the harness's seams: external commands, and the time."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.seams.process import Result


@dataclass(frozen=True)
class Answer:
    """What a command that begins with `prefix` gives."""

    prefix: str
    stdout: str = ""
    stderr: str = ""
    status: int = 0
    raises: BaseException | None = None
    does: Callable[[], object] | None = None


@dataclass(frozen=True)
class Call:
    """How a command was started."""

    argv: tuple[str, ...]
    cwd: Path | None
    env: Mapping[str, str] | None
    add_env: Mapping[str, str] | None
    stdin: str | None
    within: float


@dataclass
class FakeRunner:
    """A Runner that starts nothing: it knows answers, and remembers what it was asked.

        runner = FakeRunner().on("docker version", stdout="28.1").on("docker rm", status=1, stderr="in use")

    A command is what a person would paste: the runbook's line, where one is typed, else the joined argv. The answer
    whose prefix was given last wins; a command that nothing was said about is an AssertionError.
    """

    answers: list[Answer] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    details: list[Call] = field(default_factory=list)

    def on(
        self,
        prefix: str,
        stdout: str = "",
        stderr: str = "",
        status: int = 0,
        raises: BaseException | None = None,
        does: Callable[[], object] | None = None,
    ) -> FakeRunner:
        """What commands that begin with `prefix` give from now on; `does` is called before they do."""
        self.answers.insert(0, Answer(prefix, stdout, stderr, status, raises, does))
        return self

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
        command = line or shlex.join(argv)
        self.calls.append(command)
        self.details.append(Call(tuple(argv), cwd, env, add_env, stdin, within))
        answer = next((answer for answer in self.answers if command.startswith(answer.prefix)), None)
        assert answer is not None, f"nothing is known of the command `{command}`"
        if answer.does is not None:
            answer.does()
        if answer.raises is not None:
            raise answer.raises
        result = Result(tuple(argv) if line is None else (line,), answer.status, answer.stdout, answer.stderr, 0.0)
        return result if ok is None else result.expect(*ok)


@dataclass
class FakeClock:
    """A time that passes only when somebody sleeps, or a test says so."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
