"""Everything the harness raises on purpose.

HarnessError                 3  internal error: the harness itself is at fault
├── Misconfigured            4  wrong usage or configuration: the person at the keyboard can mend it
│   └── ReadOnly             4  a call that changes something, in a run that must change nothing
├── EnvironmentFailed        6  what the platform stands on failed, so the platform was not judged
└── PlatformWrong            1  the platform is not as the runbook claims
    ├── CommandFailed        1  a command ended with a status that is not an answer
    ├── WaitExpired          1  a state was not reached, or did not hold, within its limit
    └── AnswerNotUnderstood  1  a program answered something that cannot be read

The number is the exit status of bin/platform when the error ends a run (DESIGN: it comes from the kind of the
exception, never from the pytest phase it was raised in). Messages begin in lower case with their subject and, where
the remedy is known, end with it.
"""

from __future__ import annotations

import enum
import shlex
from collections.abc import Sequence

# A command longer than this is cut in a message; the record has it whole.
COMMAND_SHOWN = 160


class ExitStatus(enum.IntEnum):
    """Exit status of bin/platform."""

    VERIFIED = 0
    PLATFORM_WRONG = 1
    INTERRUPTED = 2
    INTERNAL_ERROR = 3
    MISCONFIGURED = 4
    NOTHING_VERIFIED = 5
    ENVIRONMENT_FAILED = 6


class HarnessError(Exception):
    """The harness itself is at fault."""

    status = ExitStatus.INTERNAL_ERROR


class Misconfigured(HarnessError):
    """Wrong usage or configuration; the message says what to change."""

    status = ExitStatus.MISCONFIGURED


class ReadOnly(Misconfigured):
    """A call that changes something was refused, because this run must change nothing."""


class EnvironmentFailed(HarnessError):
    """What the platform stands on (Docker Engine, disk, package source, ground) failed."""

    status = ExitStatus.ENVIRONMENT_FAILED


class PlatformWrong(HarnessError):
    """The platform is not as the runbook claims.

    `expected`, `seen` and `where` are one line each for the verdict; `paste` is a command that shows the fault again.
    """

    status = ExitStatus.PLATFORM_WRONG

    def __init__(self, message: str, *, expected: str = "", seen: str = "", where: str = "", paste: str = "") -> None:
        super().__init__(message)
        self.expected = expected
        self.seen = seen
        self.where = where
        self.paste = paste


class CommandFailed(PlatformWrong):
    """A command ended with a status that is not an answer. Its last line says why, where no `reason` is known."""

    def __init__(
        self, argv: Sequence[str], status: int | str, stdout: str, stderr: str, where: str = "", reason: str = ""
    ) -> None:
        self.argv = list(argv)
        self.status_seen = status
        self.reason = reason
        self.stdout = stdout
        self.stderr = stderr
        paste = argv[0] if len(argv) == 1 else shlex.join(argv)
        command = " ".join(paste.split())
        command = command if len(command) <= COMMAND_SHOWN else command[: COMMAND_SHOWN - 1] + "…"
        lines = (stderr.strip() or stdout.strip() or "no output").splitlines()
        # apt and mmdebstrap end with what they ran, and say first why that failed
        errors = [line for line in lines if line.startswith("E: ")] if lines[-1].startswith("E: ") else []
        last = reason or (errors or lines[-1:])[0]
        super().__init__(
            f"command `{command}` ended with {status}: {last}",
            expected="status 0",
            seen=f"status {status}: {last}",
            where=where,
            paste=paste,
        )


class WaitExpired(PlatformWrong):
    """A state was not reached, or did not hold, within its limit."""


class AnswerNotUnderstood(PlatformWrong):
    """A program answered something that cannot be read."""

    def __init__(self, program: str, answer: str, reason: str) -> None:
        super().__init__(
            f"answer of {program} not understood: {reason}", expected="an answer that can be read", seen=answer[:500]
        )
