"""What the tests of set-up ask of a machine: what its engine says, what was done to it, what is locked on it."""

from __future__ import annotations

import fcntl
from pathlib import Path

from tests.fakes import FakeRunner

# what `docker info` says of an engine that serves
INFO = {"CgroupVersion": "2", "OperatingSystem": "Debian GNU/Linux 13", "SecurityOptions": ["name=seccomp"]}


def changes(runner: FakeRunner) -> list[str]:
    """What was done to the machine."""
    return [call for call in runner.calls if not call.startswith(("docker version", "docker info", "sudo -n true"))]


def locked(name: str, folder: Path) -> bool:
    """Whether another process holds this lock of the machine's."""
    with (folder / f"platform-{name}").open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
