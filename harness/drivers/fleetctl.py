"""fleetctl, as the operator has it: in their folder, with their environment."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from harness.drivers.shell import OperatorShell
from harness.seams.process import Result, Runner

# What fleetctl asks the machine of a unit for, over SSH
OF_UNIT = (("status",), ("journal", "--lines=1"), ("ssh",))
CRASH = re.compile(r"^.*(?:panic:|SIGSEGV|nil pointer|fatal error:|goroutine \d).*$", re.MULTILINE)


class Fleetctl:
    """fleetctl of an operator's shell. What it answers is given as it is, errors too."""

    def __init__(self, process: Runner, shell: OperatorShell) -> None:
        self._process = process
        self._shell = shell

    def about(self, unit: str, within: float) -> dict[str, Result]:
        """What status, journal and ssh (of a command that does nothing) answer of a unit, asked side by side: words ->
        answer. Raises PlatformWrong when one takes more than `within` seconds."""
        asked = [(*words, unit, *(("true",) if words == ("ssh",) else ())) for words in OF_UNIT]
        with ThreadPoolExecutor(max_workers=len(asked)) as pool:
            answers = {" ".join(words): pool.submit(self._ask, words, within) for words in asked}
        return {words: answer.result() for words, answer in answers.items()}

    def units(self) -> set[str]:
        """Names of all units that fleet holds. Raises CommandFailed."""
        listed = self._ask(("list-unit-files", "--no-legend", "--fields=unit"), 10).expect(0).stdout
        return set(listed.split())

    def destroy(self, *units: str) -> None:
        """fleet forgets these units, where it has them. Raises CommandFailed."""
        self._ask(("destroy", *units), 30).expect(0)

    def start(self, *files: str) -> None:
        """fleet has these units as their files say, and starts them; whether they run is not waited for. Raises
        CommandFailed."""
        self._ask(("start", "--no-block", "--replace", *files), 30).expect(0)

    def _ask(self, words: Sequence[str], within: float) -> Result:
        argv = ("fleetctl", *words)
        return self._process.run(argv, cwd=self._shell.cwd, env=self._shell.env, within=within, ok=None)


def fault(answer: Result, said: str) -> str:
    """What is wrong with an answer that is to be an error which says this; "" when it is one."""
    text = answer.stdout + answer.stderr
    if crash := CRASH.search(text):
        return f"it crashed: {crash[0].strip()}"
    if answer.status <= 0:
        return f"status {answer.status}"
    return "" if said in text else f"status {answer.status}, and it says: {text.strip()}"
