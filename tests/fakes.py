"""Stand-ins for what lies beyond the harness's seams: external commands, and the time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from harness.seams.process import Call, Result, Runner


@dataclass(frozen=True)
class Answer:
    """What a command that begins with `prefix` gives."""

    prefix: str
    stdout: str = ""
    stderr: str = ""
    status: int = 0
    raises: BaseException | None = None
    does: Callable[[], object] | None = None


@dataclass
class FakeRunner(Runner):
    """A Runner that starts nothing: it knows answers, and remembers what it was asked.

        runner = FakeRunner().on("docker version", stdout="28.1").on("docker rm", status=1, stderr="in use")

    A command is what a person would paste: the runbook's line, where one is typed, else the joined argv. The answer
    whose prefix was given last wins; a command that nothing was said about is an AssertionError.
    """

    answers: list[Answer] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    details: list[Call] = field(default_factory=list)

    def end_all(self) -> None:
        """Nothing of it runs."""

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

    def _execute(self, call: Call) -> Result:
        self.calls.append(call.shown)
        self.details.append(call)
        answer = next((answer for answer in self.answers if call.shown.startswith(answer.prefix)), None)
        assert answer is not None, f"nothing is known of the command `{call.shown}`"
        if answer.does is not None:
            answer.does()
        if answer.raises is not None:
            raise answer.raises
        return call.result(answer.status, answer.stdout, answer.stderr, 0.0)


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
