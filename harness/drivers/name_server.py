"""Where the sites' host names lead: asked of the name server that the cluster itself tells, and of no other."""

from __future__ import annotations

from harness.errors import CommandFailed, PlatformWrong
from harness.seams.process import Runner
from harness.seams.wait import NotAnswering


class NameServer:
    """One name server, asked as the runbook asks it: with dig, without a cache."""

    def __init__(self, address: str, process: Runner) -> None:
        self.address = address
        self._process = process

    def lookup(self, name: str) -> str:
        """The one address of a host name, such as "192.0.2.1"; "" when it has none.

        Raises NotAnswering while the name server does not answer, PlatformWrong when the name has several addresses.
        """
        ask = ["dig", "+short", "+tcp", "+tries=2", "+time=2", f"@{self.address}", name, "A"]
        try:
            lines = self._process.run(ask).stdout.splitlines()
        except CommandFailed as silent:
            raise NotAnswering.of(silent) from silent
        answer = [line for line in lines if not line.startswith(";")]  # its remarks, of an attempt that failed
        if len(answer) > 1:
            raise PlatformWrong(f"{name} has several addresses", expected="one", seen=", ".join(answer))
        return "".join(answer)
