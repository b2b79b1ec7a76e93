"""The operator's workplace: what a person has in front of them who types the runbook, and what of it stays with a kept
cluster.

    .runs/RUN-ID/
        operator/           the operator's working folder, a copy of what the runbook's commands need
        operator.json       the operator's shell: working folder and environment
        key                 the operator's private SSH key
        env, ssh_config     of a kept cluster: how to reach it, for a shell and for ssh
        ground/             the ground's root module and its state
        last-green          touched when all of the cluster was last well
        for-drills, fault-NAME.json, fault.lock      of a cluster that is broken on purpose, see harness/runs/faults.py
        in-use              locked for writing while the cluster is made or removed, for reading while it is used

Everything that a run makes carries its run id: containers and networks in their names and in the label `platform.run`,
processes in their environment (PLATFORM_RUN), files by lying in the run folder. The leftovers that looks for leaks
finds them by that.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from harness import files
from harness.drivers.shell import OperatorShell
from harness.drivers.terraform import Outputs, Terraform, declared
from harness.errors import EnvironmentFailed, HarnessError, Misconfigured
from harness.model import tfvars
from harness.record.log import Redactor
from harness.runs.agent import Agent, Keys, LentAgent
from harness.runs.leftovers import Leftovers
from harness.runs.run import Run
from harness.seams.patience import patience
from harness.seams.surroundings import cleaned
from harness.setup.limits import processors
from harness.setup.toolchain import Toolchain
from harness.text import did_you_mean

# What the runbook's commands need, copied so that a run never writes to the checkout.
OPERATORS_FILES = ("bin", "harness", "infra", "units", "container", "sites", "requirements", "terraform.example.tfvars")
EXAMPLE = "terraform.example.tfvars"
# While it is there, the cluster of the run stands, or is being made
SHELL_STATE = "operator.json"
# Of a second shell, which a scenario opens and closes
SECOND_SHELL = "another-shell.json"
# A run that knows a cluster by its target's outputs only: the cluster is not of its making, nor its to remove
OUTPUTS = "outputs.json"
# Locked by who makes, removes or uses the cluster
IN_USE = "in-use"
# As the runbook names them, from a target's folder
VARIABLES = "../../terraform.tfvars"
# What the operator does not choose, in a target's folder and in the ground's
HANDED_OVER = "run.auto.tfvars.json"
# fleet's authors advise no more machines than this; host keys are made for all that could be asked for.
MACHINES_AT_MOST = 100
# What a person's shell needs to reach a kept cluster. Not PLATFORM_RUN: what that shell starts is the person's.
REACHING = ("PATH", "TARGET", "TF_CLI_CONFIG_FILE", "DISCOVERY_SERVICE", "SSH_AUTH_SOCK")
# The variable of a target that logs in on hosts which exist already
LOGS_IN_WITH = "key_file"


class Workplace:
    """The workplace of the cluster that run `run_id` made; `run` is the one that uses it now."""

    def __init__(self, run: Run, folder: Path) -> None:
        self.run = run
        self.folder = folder
        self.run_id = folder.name
        self.operators = folder / "operator"
        self.ground_folder = folder / "ground"
        self.shell_state = folder / SHELL_STATE
        self.key = folder / "key"
        self.shell = OperatorShell(run.process, self.shell_state)
        self._agent: Agent | LentAgent | None = None
        # the operator's key of a cluster that is another's: "" where there is none
        self._lent_key = ""

    @property
    def target(self) -> str:
        return self.shell.env["TARGET"]

    @property
    def target_folder(self) -> Path:
        return self.shell.cwd / "infra" / self.target

    @property
    def environment(self) -> dict[str, str]:
        """The operator's; this process's, before there is an operator."""
        return self.shell.env if self.shell_state.exists() else cleaned(os.environ)

    # -- made ----------------------------------------------------------------------------------------------------

    def open(self, toolchain: Toolchain, target: str, machines: int | None = None) -> None:
        """The operator's working folder, keys, agent and shell; `machines` goes into the example variables."""
        known_target(self.run.root, target)
        self.operators.mkdir(mode=0o700)  # Terraform's state holds the host keys
        for name in OPERATORS_FILES:
            source = self.run.root / name
            ignore = shutil.ignore_patterns("__pycache__", ".terraform*", "*.tfstate*", "terraform.tfvars", "*.key")
            if source.is_dir():
                shutil.copytree(source, self.operators / name, symlinks=True, ignore=ignore)
            else:
                shutil.copy2(source, self.operators / name)
        if machines is not None:
            example = self.operators / EXAMPLE
            files.put(example, tfvars.set_number(example.read_text(), "machines", machines, EXAMPLE))
        user = Keys.generate(f"operator@{self.run_id}")
        self.put_key(user.private)
        environment = self._new_environment(toolchain, target)
        environment |= self._start_agent(environment, self.operators / "infra" / target)
        OperatorShell.open(self.run.process, self.shell_state, self.operators, environment)
        made = {"run_id": self.run_id, "ssh_public_key": user.public, "ssh_host_keys": self._host_keys()}
        self.hand_over({**made, "patience": patience(), "processors": processors()})

    def put_key(self, private: str) -> None:
        """Keeps the operator's private SSH key, for their eyes only; in no file, where the cluster is another's: a run
        that is killed could not remove it."""
        self.run.redact.add("ssh private key", private)
        if self._is_anothers:
            self._lent_key = private
        else:
            files.put(self.key, private, mode=0o600)

    def _new_environment(self, toolchain: Toolchain, target: str) -> dict[str, str]:
        """This process's, without what would steer Terraform and fleetctl behind the runbook's back."""
        inherited = {
            name: value
            for name, value in cleaned(os.environ).items()
            if not name.startswith(("FLEETCTL_", "SSH_", "BASH_FUNC", "MAKE")) and name not in ("_", "NAME_KEY")
        }
        path = [str(folder) for folder in toolchain.path] + [os.environ.get("PATH", os.defpath)]
        return {
            **inherited,
            "PATH": ":".join(path),
            "TARGET": target,
            "PLATFORM_RUN": self.run_id,
            "TF_CLI_CONFIG_FILE": str(toolchain.terraform_config),
            "CHECKPOINT_DISABLE": "1",  # it asks its maker for newer versions
            "TF_INPUT": "0",
            "TF_CLI_ARGS": "-no-color",
            "NO_COLOR": "1",
        }

    def _host_keys(self) -> dict[str, dict[str, str]]:
        keys = {f"coreos-{index}": Keys.generate(f"coreos-{index}") for index in range(MACHINES_AT_MOST)}
        for key in keys.values():
            self.run.redact.add("ssh host key", key.private)
        return {name: {"private": key.private, "public": key.public} for name, key in keys.items()}

    def hand_over(self, variables: Mapping[str, object]) -> None:
        """Gives the target what the operator does not choose, as far as it declares it, as a file Terraform reads by
        itself (*.auto.tfvars)."""
        file = self.target_folder / HANDED_OVER
        known = files.read_object(file) if file.exists() else {}
        wanted = declared(self.target_folder)
        chosen = {name: value for name, value in variables.items() if name in wanted}
        files.put(file, json.dumps(known | chosen), mode=0o600)

    # -- used ----------------------------------------------------------------------------------------------------

    def unlock(self) -> None:
        """An agent of this run's own with the operator's key: the one that the cluster was kept with may be gone. Where
        no key was handed over, the person's agent stays."""
        if self._lent_key or self.key.exists():
            self.shell.own = self._start_agent(cleaned(os.environ), None if self._is_anothers else self.target_folder)

    @property
    def _is_anothers(self) -> bool:
        """Whether nothing but a target's outputs is known of the cluster."""
        return (self.folder / OUTPUTS).exists()

    def _start_agent(self, environment: Mapping[str, str], target_folder: Path | None) -> dict[str, str]:
        if target_folder and (persons := _persons_agent(target_folder)):
            self._agent = LentAgent.lend(self.run, self.key, persons)
        else:
            self._agent = Agent.start(self.run, self._lent_key or self.key.read_text(), environment)
        os.environ["SSH_AUTH_SOCK"] = str(self._agent.socket)  # our own SSH connections use it too
        return self._agent.variables

    def lock(self) -> None:
        """Ends the agent that this process started."""
        if self._agent is not None:
            self._agent.end()
            self._agent = None

    def terraform(self) -> Terraform:
        """Of the machines."""
        return Terraform(self.run.process, self.target_folder, self.environment, VARIABLES)

    def ground(self) -> Terraform:
        """Of what they stand on."""
        return Terraform(self.run.process, self.ground_folder, self.environment)

    def keep(self, outputs: Outputs) -> None:
        """Writes how the cluster is reached: `env` for a shell, `ssh_config` for ssh."""
        environment = self.shell.env
        reaching = {name: environment[name] for name in REACHING if name in environment}
        reaching |= {name: value for name, value in environment.items() if name.startswith("FLEETCTL_")}
        reaching["FLEETCTL_TUNNEL"] = outputs.entry_point
        known_hosts = self.folder / "known_hosts"
        files.put(known_hosts, outputs.known_hosts)
        reaching["FLEETCTL_KNOWN_HOSTS_FILE"] = str(known_hosts)
        exports = (f"export {name}={shlex.quote(value)}\n" for name, value in reaching.items())
        files.put(self.folder / "env", "".join(exports))
        entry_point = outputs.way_in
        lines = []
        for name, address in outputs.machines.items():
            lines += [f"Host {name}", f"    HostName {address}"]
            if name != entry_point:
                lines.append(f"    ProxyJump {entry_point}")
        lines += ["Host *", f"    User {outputs.ssh_user}", f"    IdentityFile {_in_ssh_config(self.key)}"]
        lines += ["    IdentitiesOnly yes", f"    UserKnownHostsFile {_in_ssh_config(known_hosts)}"]
        lines += ["    StrictHostKeyChecking yes"]
        files.put(self.folder / "ssh_config", "\n".join(lines) + "\n")

    # -- removed -------------------------------------------------------------------------------------------------

    def tear_down(self) -> None:
        """Removes all that the run made, whatever state it is in; each failure is recorded and the rest still done.

        What is found afterwards that carries the run id is a leak: it is reported, and removed too. Keys and
        Terraform's state go only when all that they are needed for is gone.
        """
        run, environment = self.run, self.environment
        try:
            # a stack calls the last that was pushed first, and every one whatever the others raise
            with contextlib.ExitStack() as stack:
                stack.callback(run.task, "look for leaks", self.leftovers().sweep)
                stack.callback(run.task, "end ssh-agent", self._end_agent, environment)
                stack.callback(run.task, "destroy ground", lambda: _destroy(self.ground()))
                if self.shell_state.exists() and not self._is_anothers:
                    stack.callback(run.task, "destroy machines", lambda: _destroy(self.terraform()))
                    self._wake_agent(environment)
        except (HarnessError, OSError, subprocess.SubprocessError) as failed:
            raise EnvironmentFailed(
                f"the teardown is not complete (remove the rest with `bin/platform down --run {self.run_id}`): {failed}"
            ) from failed
        self._remove_files()

    def leftovers(self) -> Leftovers:
        """What carries the id of the run that made the cluster."""
        return Leftovers(self.run.process, self.run.recorder, self.run_id, self.folder)

    def _wake_agent(self, environment: Mapping[str, str]) -> None:
        """What is given back over SSH needs an agent: that which the cluster was made with may be gone."""
        agent = self._agent or Agent.of(self.run_id, environment)
        if LOGS_IN_WITH in declared(self.target_folder) and not (isinstance(agent, Agent) and agent.listens()):
            self.unlock()

    def _end_agent(self, environment: Mapping[str, str]) -> None:
        agents = [self._agent, Agent.of(self.run_id, environment)]
        # the one that the cluster was made with may be another than today's
        lends = self.shell_state.exists() and self.key.exists() and LOGS_IN_WITH in declared(self.target_folder)
        if lends and "SSH_AGENT_PID" not in environment and environment.get("SSH_AUTH_SOCK"):
            agents.append(LentAgent(self.run, self.key, Path(environment["SSH_AUTH_SOCK"])))
        for agent in agents:
            if isinstance(agent, LentAgent):
                agent.take_back()
            elif agent is not None:
                agent.end()

    def _remove_files(self) -> None:
        for folder in (self.operators, self.ground_folder):
            if folder.exists():
                shutil.rmtree(folder)
        self.forget()
        for name in (
            "env",
            "ssh_config",
            "known_hosts",
            "last-green",
            "for-drills",
            "fault.lock",
            IN_USE,
            SECOND_SHELL,
            *(note.name for note in self.folder.glob("fault-*.json")),
        ):
            (self.folder / name).unlink(missing_ok=True)

    def forget(self) -> None:
        """Removes the operator's shell and key: nobody reaches a cluster from here any more."""
        self._lent_key = ""
        for key in (self.key, *self.folder.glob(".key.*")):  # of a command that was killed while it wrote it
            key.unlink(missing_ok=True)
        self.shell_state.unlink(missing_ok=True)


def builds(run: Path, workplace: Path) -> bool:
    """Whether the run of this folder builds its cluster. One that is known by its outputs only has its workplace in the
    run's folder as well, and is running already."""
    return run == workplace and not (workplace / OUTPUTS).exists()


def _persons_agent(target_folder: Path) -> str:
    """The socket of the person's ssh-agent, where this target logs in with a key of it: its `key_file` is empty."""
    if LOGS_IN_WITH not in declared(target_folder):
        return ""
    named: dict[str, object] = {}
    for file in sorted(target_folder.glob("*.auto.tfvars")):
        named |= tfvars.read(file.read_text(), file.name)
    return "" if named.get(LOGS_IN_WITH) else os.environ.get("SSH_AUTH_SOCK", "")


def _destroy(terraform: Terraform) -> None:
    if terraform.has_state():
        terraform.destroy()


def _in_ssh_config(path: Path) -> str:
    """A path as ssh_config(5) takes it: blanks end a word, and a percent sign begins a token."""
    return '"{}"'.format(str(path).replace("%", "%%"))


@contextmanager
def in_use(folder: Path, *, alone: bool, wait: bool = False) -> Iterator[None]:
    """Holds the cluster of a run folder: alone while it is made or removed, else together with others that use it.

    Raises Misconfigured when somebody else's use does not go with that, unless it is to `wait` for their end.
    """
    with (folder / IN_USE).open("w") as lock:
        try:
            fcntl.flock(lock, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as busy:
            what = f"{'used' if alone else 'changed'}, made or removed by another command"
            raise Misconfigured(f"the cluster of run {folder.name} is being {what}: wait for it to end") from busy
        yield


def add_secrets(redact: Redactor, workplace: Path) -> None:
    """Tells a redactor the secrets of a workplace: the operator's key, and the file that hands the machines' to
    Terraform."""
    key = workplace / "key"
    if key.exists():
        redact.add("ssh private key", key.read_text())
    for file in workplace.glob(f"operator/infra/*/{HANDED_OVER}"):
        try:
            variables = files.read_object(file)
        except EnvironmentFailed as cut:  # what it held was given to no machine: whoever removes the cluster goes on
            print(f"platform: {cut}", file=sys.stderr)
            continue
        for pair in variables.get("ssh_host_keys", {}).values():
            redact.add("ssh host key", pair["private"])
        redact.add("key of the name server", variables.get("name_key", ""))


def targets(root: Path) -> list[str]:
    """Names of the targets: folders of infra/ with a target.json."""
    return sorted(file.parent.name for file in (root / "infra").glob("*/target.json"))


def known_target(root: Path, target: str) -> None:
    """Raises Misconfigured unless there is a target of this name."""
    known = targets(root)
    if target not in known:
        raise Misconfigured(f"there is no target {target}: {did_you_mean(target, known)}targets are {', '.join(known)}")
