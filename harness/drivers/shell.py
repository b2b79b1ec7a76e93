"""The operator's shell: the runbook's lines are typed here, as they stand.

Each line runs in a bash of its own; working folder and exported variables are carried from line to line in a file of
the run, so the shell lasts through the run and through its stages, whatever process types the next line.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from harness import files
from harness.drivers.terraform import explained
from harness.errors import CommandFailed, EnvironmentFailed, ReadOnly
from harness.seams.process import Result, Runner

# Behind the line: where it left the shell, NUL-separated, so that any value survives. Descriptor 3 is a file of ours.
# A trap that does not exit keeps the line's own status, also when the line says `exit`.
WRAPPED = """exec 3>{after}
trap '{{ printf "%s\\0" "$PWD"; {env} -0; }} >&3' EXIT
{line}
"""
# Each line has a bash of its own: what counts those is not the operator's.
NOT_CARRIED = ("_", "SHLVL")


class OperatorShell:
    """bash in the operator's working folder, with the operator's environment."""

    def __init__(self, process: Runner, state: Path, *, read_only: bool = False) -> None:
        self._process = process
        self._state = state
        self._read_only = read_only
        # variables that are this process's own and not carried on: an ssh-agent that ends with it
        self.own: dict[str, str] = {}
        # lines that were typed here and ended as they may
        self.typed: list[str] = []

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
        return self._load()[1] | self.own

    def type(self, line: str, *, within: float = 300, ok: Collection[int] | None = (0,)) -> Result:
        """Types one line of the runbook and waits for its end, for at most `within` seconds.

        Raises what the seam to processes raises: CommandFailed for a status not in `ok`; ReadOnly in a run that must
        change nothing, for the runbook's lines change something.
        """
        if self._read_only:
            raise ReadOnly(f"`{line}` is not typed: this run must change nothing")
        cwd, env = self._load()
        after = self._state.with_suffix(".after")
        after.touch(mode=0o600)
        script = WRAPPED.format(after=shlex.quote(str(after)), env=shutil.which("env"), line=line)
        try:
            result = self._process.run(
                ["bash", "--noprofile", "--norc", "-c", script],
                cwd=Path(cwd),
                env=env | self.own,
                within=within,
                line=line,
                ok=ok,
            )
            self.typed.append(line)
            return result
        except CommandFailed as failed:
            raise explained(failed) if line.startswith("terraform ") else failed from None
        finally:
            self._take_over(after)

    def export(self, **variables: str) -> None:
        """Sets variables, as the person would who prepared this shell."""
        cwd, env = self._load()
        self._save(cwd, env | variables)

    def edit(self, name: str, change: Callable[[str], str]) -> None:
        """Changes a text file of the working folder, as the person would in an editor. Raises ReadOnly."""
        if self._read_only:
            raise ReadOnly(f"{name} is not edited: this run must change nothing")
        file = self.cwd / name
        files.replace(file, change(file.read_text()))

    def close(self) -> None:
        """Closes a shell for good. An ssh-agent that was started in it ends with it."""
        env = self.env
        self._state.unlink()
        if "SSH_AGENT_PID" in env:
            self._process.run(["ssh-agent", "-k"], env=env, within=10)

    def _take_over(self, after: Path) -> None:
        """Where the line left the shell; a line that was killed left nothing, and the state before stays."""
        cwd, *pairs = after.read_bytes().decode(errors="surrogateescape").split("\0")
        after.unlink()
        if pairs:
            named = (pair.partition("=") for pair in pairs if "=" in pair)
            env = {name: value for name, _, value in named if not name.startswith("BASH_FUNC")}
            before = self._load()[1]
            for name in (*NOT_CARRIED, *self.own):
                env.pop(name, None)
                env |= {name: before[name]} if name in before else {}
            self._save(cwd if Path(cwd).is_dir() else self._load()[0], env)

    def _load(self) -> tuple[str, dict[str, str]]:
        try:
            state = files.read_object(self._state)
        except FileNotFoundError as missing:
            raise EnvironmentFailed(f"the operator's shell of this run is gone ({self._state})") from missing
        return state["cwd"], state["env"]

    def _save(self, cwd: str, env: dict[str, str]) -> None:
        files.put(self._state, json.dumps({"cwd": cwd, "env": env}), mode=0o600)
