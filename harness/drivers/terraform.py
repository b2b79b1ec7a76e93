"""Terraform, for what the runbook does not type: plans as JSON, outputs, state, teardown.

python-terraform builds the command lines; its `cmd` is overridden, because it starts processes of its own.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jmespath
from python_terraform import IsFlagged
from python_terraform import Terraform as PythonTerraform

from harness.errors import AnswerNotUnderstood, CommandFailed, Misconfigured, PlatformWrong, ReadOnly
from harness.seams.process import Result, Runner

# A variable that a root module declares
VARIABLE = re.compile(r'^variable\s+"([^"]+)"', re.MULTILINE)
# What it prints itself of a connection, as if it were the program's
CONNECTING = re.compile(r"Connecting to remote host|Connected!|  [A-Z]")
# Characters of an attribute's value in a line about a change
VALUE_SHOWN = 120


class _Recorded(PythonTerraform):  # type: ignore[misc]
    """python-terraform whose processes are started, and recorded, by harness.seams.process."""

    def __init__(self, process: Runner, folder: Path, env: Mapping[str, str]) -> None:
        self._process = process
        self._env = dict(env)
        super().__init__(working_dir=str(folder))

    def cmd(self, cmd: str, *args: str, **options: Any) -> Result:
        options.pop("capture_output", None)
        ok = options.pop("ok", (0,))
        within = options.pop("within", 300)
        argv = self.generate_cmd_string(cmd, *args, **options)
        folder = Path(self.working_dir)
        try:
            return self._process.run(argv, cwd=folder, env=self._env, within=within, ok=ok)
        except CommandFailed as failed:
            raise explained(failed) from None

    def read_state_file(self, file_path: str | None = None) -> None:
        """The state is asked for through Terraform, never read from its file."""


class NothingApplied(PlatformWrong):
    """A target has no outputs: nothing was applied, or not to its end."""


@dataclass(frozen=True)
class Outputs:
    """What a target says of itself: the contract's outputs (infra/contract.json)."""

    entry_point: str
    machines: dict[str, str]
    ssh_user: str
    known_hosts: str
    sites: dict[str, str]
    name_server: str
    entry_points: tuple[str, ...]

    @property
    def way_in(self) -> str:
        """The machine whose address the entry point's is; where that is a fixed one, which leads to any of the entry
        points, the first of these. "" where it leads nowhere."""
        at = [name for name, address in self.machines.items() if address == self.entry_point]
        return next(iter([*at, *(name for name in self.entry_points if name in self.machines)]), "")

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Outputs:
        """From output name -> value. Raises AnswerNotUnderstood."""
        try:
            return cls(
                entry_point=raw["entrypoint-ip"],
                machines=raw["machines"],
                ssh_user=raw["ssh-user"],
                known_hosts=raw["known-hosts"],
                sites=raw["sites"],
                name_server=raw["name-server"],
                entry_points=tuple(raw["entry-points"]),
            )
        except KeyError as missing:
            raise AnswerNotUnderstood("terraform output", str(sorted(raw)), f"no output {missing}") from missing


@dataclass(frozen=True)
class Plan:
    """What a plan would do.

    `made` are names of the machines it makes, `destroyed` addresses of what it destroys (a replacement destroys) and
    `openings` what it opens to the outside beyond the cluster's own network, all as the target's queries find them;
    `changed` has a line for all that would be different afterwards, outputs too: of a resource that is updated one for
    each attribute.
    """

    made: list[str]
    destroyed: list[str]
    changed: list[str]
    openings: list[Any]

    @classmethod
    def read(cls, document: Mapping[str, Any], queries: Mapping[str, str]) -> Plan:
        """From `terraform show -json`, and the queries of the target (JMESPath, infra/TARGET/target.json)."""
        changes = document.get("resource_changes", [])
        return cls(
            made=sorted(jmespath.search(queries["machines_made"], document) or []),
            destroyed=jmespath.search(queries["destroyed"], document) or [],
            changed=[
                line
                for change in changes
                if change["mode"] == "managed" and change["change"]["actions"] not in (["no-op"], ["read"])
                for line in _lines(change["address"], change["change"])
            ]
            + [
                line
                for name, change in document.get("output_changes", {}).items()
                if change["actions"] != ["no-op"]
                for line in _lines(f"output {name}", change)
            ],
            openings=sorted(jmespath.search(queries["openings"], document) or [], key=str),
        )


def _lines(what: str, change: Mapping[str, Any]) -> list[str]:
    """`docker_container.machine["coreos-0"]: memory 340 -> 512`, for each attribute that differs. Sensitive values are
    not shown."""
    verbs = {("create",): "would be made", ("delete",): "would be destroyed"}
    if not what.startswith("output ") and (verb := verbs.get(tuple(change["actions"]))):
        return [f"{what}: {verb}"]
    before, after = (_attributes(change, side) for side in ("before", "after"))
    replaced = ", replaced" if {"create", "delete"} <= set(change["actions"]) else ""
    nothing = ("null", "none")
    lines = [
        f"{what}{replaced}: {name}{' ' if name else ''}{before.get(name, nothing)[1]} -> {after.get(name, nothing)[1]}"
        for name in {**before, **after}
        if before.get(name, nothing)[0] != after.get(name, nothing)[0]
    ]
    return lines or [f"{what}{replaced}: {'/'.join(change['actions'])}"]


def _attributes(change: Mapping[str, Any], side: str) -> dict[str, tuple[str, str]]:
    """Attribute ("" for a value that has none) -> its value as JSON, and in a few words."""
    value, sensitive = change.get(side), change.get(f"{side}_sensitive")
    unknown = change.get("after_unknown") if side == "after" else False
    if not isinstance(value, dict) and not isinstance(unknown, dict):
        return {"": _in_words(value, unknown, sensitive)}

    def of(table: object, name: str) -> object:
        return table.get(name) if isinstance(table, dict) else table

    names = {**(value if isinstance(value, dict) else {}), **(unknown if isinstance(unknown, dict) else {})}
    return {name: _in_words(of(value, name), of(unknown, name), of(sensitive, name)) for name in names}


def _in_words(value: object, unknown: object, sensitive: object) -> tuple[str, str]:
    exact = "(known after apply)" if unknown else json.dumps(value, ensure_ascii=False, sort_keys=True)
    cut = exact if len(exact) <= VALUE_SHOWN else f"{exact[: VALUE_SHOWN - 1]}…"
    return exact, "(sensitive)" if sensitive else cut  # true, or for something inside it


def explained(failed: CommandFailed) -> CommandFailed:
    """The same failure of a `terraform`, with the reason that it gave."""
    reason = why(failed.stdout, failed.stderr)
    return CommandFailed(failed.argv, failed.status_seen, failed.stdout, failed.stderr, failed.where, reason)


def why(stdout: str, stderr: str) -> str:
    """What went wrong, of what Terraform says of it, on one line: its first error, without the place in its files, or
    what the program printed that failed. It breaks lines at 78 characters, and frames them; what a program printed on
    another machine is not among its errors, but in its output."""
    plain = "\n".join(line.strip(" │╷╵") for line in stderr.splitlines())
    first = f"\n{plain}".partition("\nError: ")[2].split("\nError: ")[0] or plain
    summary, *more = [" ".join(paragraph.split()) for paragraph in first.strip().split("\n\n")]
    address = next((found[1] for it in more if (found := re.match(r"with (\S+),", it))), "")
    detail = ": ".join(it for it in more if not it.startswith(("with ", "on ")))
    # where the connection broke there is no status, and what was printed before is no reason
    if summary == "remote-exec provisioner error" and "exited with status" in detail:
        beginning = f"{address} (remote-exec): "
        lines = [line.removeprefix(beginning) for line in stdout.splitlines() if line.startswith(beginning)]
        printed = [line for line in lines if line.strip() and not CONNECTING.match(line)]
        detail = f" Output: {printed[-1]}" if printed else detail
    text = f"{address or summary}: {detail}" if detail else summary
    return text.partition(" Output: ")[2].strip() or text


class Terraform:
    """One root module in its working folder."""

    def __init__(
        self,
        process: Runner,
        folder: Path,
        env: Mapping[str, str],
        var_file: str | None = None,
        *,
        read_only: bool = False,
    ) -> None:
        self.folder = folder
        self._read_only = read_only
        self._terraform = _Recorded(process, folder, env)
        self._variables = {} if var_file is None else {"var_file": var_file}

    def init(self) -> None:
        self._terraform.cmd("init", input=False, no_color=IsFlagged)

    def apply(self) -> None:
        self._refuse("apply")
        self._terraform.cmd("apply", input=False, no_color=IsFlagged, auto_approve=IsFlagged, **self._variables)

    def destroy(self) -> None:
        """Destroys all that the state knows; without a refresh, which what is half gone could fail."""
        self._refuse("destroy")
        self._terraform.cmd(
            "destroy", input=False, no_color=IsFlagged, auto_approve=IsFlagged, refresh=False, **self._variables
        )

    def _refuse(self, command: str) -> None:
        if self._read_only:
            raise ReadOnly(f"terraform {command} in {self.folder} is refused: this run must change nothing")

    def plan(self, stored: str) -> Plan:
        """What a stored plan would do."""
        return Plan.read(self._json("show", stored), target_data(self.folder))

    def second_plan(self) -> Plan:
        """What a plan against what now stands would do, refreshed; it changes nothing, and several at once do not
        meet."""
        with tempfile.TemporaryDirectory(prefix="platform-plan-") as scratch:
            stored = f"{scratch}/again.plan"
            self._terraform.cmd("plan", input=False, no_color=IsFlagged, lock=False, out=stored, **self._variables)
            return self.plan(stored)

    def serial(self) -> int:
        """The state's serial number: Terraform counts it up with every change."""
        state = self._terraform.cmd("state", "pull").stdout
        try:
            return int(json.loads(state)["serial"])
        except (ValueError, KeyError, TypeError) as wrong:
            raise AnswerNotUnderstood("terraform state pull", state, f"no serial: {wrong}") from wrong

    def has_state(self) -> bool:
        """Whether there is a state here, or a backend that has one."""
        return any((self.folder / name).exists() for name in ("terraform.tfstate", ".terraform/terraform.tfstate"))

    def raw_outputs(self) -> dict[str, Any]:
        """Output name -> value. (python-terraform's own `output(name)` raises TypeError: all are taken.)"""
        return {name: output["value"] for name, output in self._json("output").items()}

    def outputs(self) -> Outputs:
        """The contract's outputs. Raises NothingApplied."""
        raw = self.raw_outputs()
        if not raw:
            raise NothingApplied(
                "there are no machines: nothing has been applied",
                expected="the outputs of an applied plan",
                seen="no outputs",
                paste=f"terraform -chdir={self.folder} output",
            )
        return Outputs.read(raw)

    def _json(self, command: str, *arguments: str) -> dict[str, Any]:
        result = self._terraform.cmd(command, *arguments, json=IsFlagged, no_color=IsFlagged)
        try:
            # a person's Terraform may be wrapped in a program that prints lines of its own around it
            document = json.loads(result.stdout[max(result.stdout.find("{"), 0) : result.stdout.rfind("}") + 1])
        except ValueError as wrong:
            raise AnswerNotUnderstood(f"terraform {command}", result.stdout, str(wrong)) from wrong
        if not isinstance(document, dict):
            raise AnswerNotUnderstood(f"terraform {command}", result.stdout, "not an object")
        return document


def target_data(folder: Path) -> dict[str, Any]:
    """What the harness must know of a target and its outputs do not tell: infra/TARGET/target.json, without what needs
    a variable of the environment (`needs`) that is not set."""
    try:
        data = json.loads((folder / "target.json").read_text())
    except FileNotFoundError as missing:
        raise Misconfigured(f"{folder} is no target: it has no target.json") from missing
    except ValueError as wrong:
        raise Misconfigured(f"{folder}/target.json is no JSON: {wrong}") from wrong
    assert isinstance(data, dict)
    lacking = [name for name, variable in data.get("needs", {}).items() if not os.environ.get(variable)]
    return {name: value for name, value in data.items() if name not in lacking}


def declared(folder: Path) -> set[str]:
    """Names of the variables that a root module declares: what is handed to it."""
    return {name for file in folder.glob("*.tf") for name in VARIABLE.findall(file.read_text())}
