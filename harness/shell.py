"""The operator's shell: the runbook's lines are typed here, as they stand.

Each line runs in a bash of its own; working folder and exported variables are carried from line to line in a file of
the run, so the shell lasts through the run and through its stages, whatever process types the next line.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path

from harness.errors import EnvironmentFailed
from harness.process import Result, Runner

# After the line: where it left the shell, NUL-separated, so that any value survives. 3 is a file of ours; the status
# is the line's own. `exit` in a line ends it early, as it would at a terminal, and still leaves its state.
WRAPPED = """
trap 'status=$?; {{ pwd -P; env -0; }} >&3; exit $status' EXIT
{line}
"""


class OperatorShell:
    """bash in the operator's working folder, with the operator's environment."""

    def __init__(self, process: Runner, state: Path) -> None:
        self._process = process
        self._state = state

    @classmethod
    def open(cls, process: Runner, state: Path, cwd: Path, env: Mapping[str, str]) -> OperatorShell:
        """A new shell, whose state is kept in the file `state`."""
        shell = cls(process, state)
        shell._save(str(cwd), dict(env))
        return shell

    @property
    def cwd(self) -> Path:
        return Path(self._load()[0])

    @property
    def env(self) -> dict[str, str]:
        return self._load()[1]

    def type(self, line: str, *, within: float = 300, ok: Collection[int] | None = (0,)) -> Result:
        """Types one line of the runbook and waits for its end, for at most `within` seconds.

        Raises what harness.process raises: CommandFailed for a status not in `ok`.
        """
        cwd, env = self._load()
        after = self._state.with_suffix(".after")
        # bash itself opens descriptor 3: what the line starts may keep its streams, never this file's content
        script = f"exec 3>{shlex.quote(str(after))}\n{WRAPPED.format(line=line)}"
        try:
            return self._process.run(
                ["bash", "--noprofile", "--norc", "-c", script],
                cwd=Path(cwd),
                env=env,
                within=within,
                line=line,
                ok=ok,
            )
        finally:
            self._take_over(after)

    def export(self, **variables: str) -> None:
        """Sets variables, as the person would who prepared this shell."""
        cwd, env = self._load()
        self._save(cwd, env | variables)

    def _take_over(self, after: Path) -> None:
        if not after.exists():
            return
        cwd, _, environment = after.read_text(errors="surrogateescape").partition("\n")
        after.unlink()
        if cwd:
            pairs = (pair.partition("=") for pair in environment.split("\0") if "=" in pair)
            self._save(
                cwd, {name: value for name, _, value in pairs if name != "_" and not name.startswith("BASH_FUNC")}
            )

    def _load(self) -> tuple[str, dict[str, str]]:
        try:
            state = json.loads(self._state.read_text())
        except FileNotFoundError as missing:
            raise EnvironmentFailed(f"the operator's shell of this run is gone ({self._state})") from missing
        return state["cwd"], state["env"]

    def _save(self, cwd: str, env: dict[str, str]) -> None:
        partial = self._state.with_suffix(".partial")
        partial.touch(mode=0o600)
        partial.write_text(json.dumps({"cwd": cwd, "env": env}), errors="surrogateescape")
        partial.replace(self._state)
