"""The life of a run: what is made, in which order, and that all of it is removed again.

    .runs/RUN-ID/
        events.jsonl        the event log             run.json, report.html, junit.xml   made from it
        operator/           the operator's working folder, a copy of what the runbook's commands need
        operator.json       the operator's shell: working folder and environment
        ground/             the ground's root module and its state
        evidence/           what was collected from the machines

Everything a run makes carries its run id: containers and networks in their names and in the label `platform.run`,
processes in their environment (PLATFORM_RUN), files by lying in the run folder. The inventory that looks for leaks
finds them by that.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from harness.cache import require_space
from harness.errors import EnvironmentFailed, ExitStatus, HarnessError, Misconfigured, PlatformWrong
from harness.inventory import Inventory
from harness.process import Processes
from harness.record import Recorder, Redactor
from harness.shell import OperatorShell
from harness.terraform import Terraform
from harness.toolchain import Toolchain
from harness.wait import Waiter

# What the runbook's commands need, copied so that a run never writes to the checkout.
OPERATORS_FILES = ("bin", "harness", "infra", "units", "container", "sites", "requirements", "terraform.example.tfvars")
# The operator's copy, Terraform's state, the record, and what a failure collects
RUN_BYTES = 128 * 2**20
# fleet's authors advise no more machines than this; host keys are made for all that could be asked for.
MACHINES_AT_MOST = 100


@dataclass(frozen=True)
class Keys:
    """An OpenSSH key pair (ed25519: fleetctl's SSH library signs RSA only in a way that today's sshd refuses)."""

    private: str
    public: str

    @classmethod
    def generate(cls, comment: str) -> Keys:
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        ).decode()
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        return cls(private, f"{public.decode()} {comment}\n")


class Run:
    """One run of the runbook, from its folder to its teardown."""

    def __init__(self, root: Path, run_id: str, target: str) -> None:
        self.root = root
        self.run_id = run_id
        self.target = target
        self.folder = root / ".runs" / run_id
        self.operators = self.folder / "operator"
        self.ground_folder = self.folder / "ground"
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            require_space(self.folder.parent, RUN_BYTES)
            self.folder.mkdir()
        except OSError as refused:
            raise EnvironmentFailed(f"the run folder {self.folder} cannot be made: {refused.strerror}") from refused
        self.redact = Redactor()
        self.recorder = Recorder(self.folder / "events.jsonl", self.redact)
        self.process = Processes(self.recorder)
        self.waiter = Waiter(self.recorder)
        self._agent: subprocess.Popen[bytes] | None = None
        self._sockets: Path | None = None

    # -- stages --------------------------------------------------------------------------------------------------

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Records a stage: its time, and how it ended."""
        self.recorder.emit("stage.started", stage=name)
        started = time.monotonic()
        outcome, error, status = "failed", None, int(ExitStatus.INTERNAL_ERROR)
        try:
            yield
            outcome = "passed"
        except HarnessError as failed:
            error, status = str(failed), int(failed.status)
            raise
        except OSError as failed:  # a full disk, a folder that went away
            error, status = f"{name}: {failed}", int(ExitStatus.ENVIRONMENT_FAILED)
            raise EnvironmentFailed(error) from failed
        except KeyboardInterrupt:
            outcome = "interrupted"
            raise
        finally:
            seconds = round(time.monotonic() - started, 3)
            self.recorder.emit("stage.ended", stage=name, seconds=seconds, outcome=outcome, error=error, status=status)

    def open_shell(self, toolchain: Toolchain) -> OperatorShell:
        """The operator's working folder, keys, agent and shell."""
        self.operators.mkdir()
        for name in OPERATORS_FILES:
            source = self.root / name
            ignore = shutil.ignore_patterns("__pycache__", ".terraform*", "*.tfstate*", "terraform.tfvars")
            if source.is_dir():
                shutil.copytree(source, self.operators / name, symlinks=True, ignore=ignore)
            else:
                shutil.copy2(source, self.operators / name)
        if not self.target_folder.is_dir():
            raise Misconfigured(f"there is no target {self.target}: targets are {', '.join(targets(self.root))}")
        user = Keys.generate(f"operator@{self.run_id}")
        self.redact.add("ssh private key", user.private)
        environment = self._environment(toolchain)
        environment["SSH_AUTH_SOCK"] = str(self._start_agent(user, environment))
        os.environ["SSH_AUTH_SOCK"] = environment["SSH_AUTH_SOCK"]  # our own SSH connections use the same agent
        self.hand_over({"run_id": self.run_id, "ssh_public_key": user.public, "ssh_host_keys": self._host_keys()})
        return OperatorShell.open(self.process, self.shell_state, self.operators, environment)

    @property
    def shell_state(self) -> Path:
        return self.folder / "operator.json"

    @property
    def target_folder(self) -> Path:
        return self.operators / "infra" / self.target

    def _environment(self, toolchain: Toolchain) -> dict[str, str]:
        """The operator's: this process's, without what would steer Terraform and fleetctl behind the runbook's back."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("TF_", "FLEETCTL_", "SSH_", "BASH_FUNC", "MAKE", "PYTEST_")) and name != "_"
        }
        path = [str(folder) for folder in toolchain.path] + [os.environ.get("PATH", os.defpath)]
        return {
            **inherited,
            "PATH": ":".join(path),
            "TARGET": self.target,
            "PLATFORM_RUN": self.run_id,
            "TF_CLI_CONFIG_FILE": str(toolchain.terraform_config),
            "TF_INPUT": "0",
            "TF_CLI_ARGS": "-no-color",
            "NO_COLOR": "1",
        }

    def _host_keys(self) -> dict[str, dict[str, str]]:
        keys = {f"coreos-{index}": Keys.generate(f"coreos-{index}") for index in range(MACHINES_AT_MOST)}
        for key in keys.values():
            self.redact.add("ssh host key", key.private)
        return {name: {"private": key.private, "public": key.public} for name, key in keys.items()}

    def hand_over(self, variables: dict[str, object]) -> None:
        """Gives the target what the operator does not choose, as a file Terraform reads by itself (*.auto.tfvars)."""
        file = self.target_folder / "run.auto.tfvars.json"
        known = json.loads(file.read_text()) if file.exists() else {}
        file.touch(mode=0o600)
        file.write_text(json.dumps(known | variables))

    def _start_agent(self, key: Keys, environment: dict[str, str]) -> Path:
        """An ssh-agent of the run: in the foreground, our child, so it cannot outlive us unnoticed."""
        # not in the run folder: the path of a socket has 108 bytes at most
        self._sockets = Path(tempfile.mkdtemp(prefix=f"platform-{self.run_id}-"))
        socket_path = self._sockets / "agent"
        try:
            self._agent = subprocess.Popen(
                ["ssh-agent", "-D", "-a", str(socket_path)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            self.waiter.until("the ssh-agent listens", lambda: _listens(socket_path), bool, within=5)
            add = ["ssh-add", "-q", "-"]
            self.process.run(add, env=environment | {"SSH_AUTH_SOCK": str(socket_path)}, stdin=key.private, within=10)
        except FileNotFoundError as missing:
            raise Misconfigured("ssh-agent is not installed: install openssh-client") from missing
        except PlatformWrong as failed:
            raise EnvironmentFailed(f"the ssh-agent of the run: {failed}") from failed
        return socket_path

    # -- teardown ------------------------------------------------------------------------------------------------

    def tear_down(self, environment: dict[str, str]) -> None:
        """Removes all that the run made, whatever state it is in; each failure is recorded and the rest still done.

        What is found afterwards that carries the run id is a leak: it is reported, and removed too.
        """
        inventory = Inventory(self.process, self.recorder, self.run_id, self.folder)
        try:
            # a stack calls the last that was pushed first, and every one whatever the others raise
            with contextlib.ExitStack() as stack:
                stack.callback(self._remove_secrets)
                stack.callback(self.task, "look for leaks", inventory.sweep)
                stack.callback(self.task, "end ssh-agent", self._end_agent)
                stack.callback(
                    self.task, "destroy ground", self._destroy, Terraform(self.process, self.ground_folder, environment)
                )
                stack.callback(self.task, "destroy machines", self._destroy, self._target_terraform(environment))
        except (HarnessError, OSError, subprocess.SubprocessError) as failed:
            again = f"bin/platform down {os.path.relpath(self.folder)}"
            raise EnvironmentFailed(
                f"the teardown is not complete (remove the rest with `{again}`): {failed}"
            ) from failed

    def _target_terraform(self, environment: dict[str, str]) -> Terraform:
        return Terraform(self.process, self.target_folder, environment, "../../terraform.tfvars")

    @staticmethod
    def _destroy(terraform: Terraform) -> None:
        if terraform.has_state():
            terraform.destroy()

    def _remove_secrets(self) -> None:
        for folder in (self.operators, self.ground_folder):
            if folder.exists():
                shutil.rmtree(folder)
        self.shell_state.unlink(missing_ok=True)

    def task(self, name: str, do: Callable[..., object], *arguments: object) -> None:
        """Does one thing, recorded with its time and how it ended."""
        self.recorder.emit("task.started", task=name)
        started, outcome, error = time.monotonic(), "failed", None
        try:
            do(*arguments)
            outcome = "done"
        except (HarnessError, OSError, subprocess.SubprocessError) as failed:
            error = str(failed)
            raise
        finally:
            seconds = round(time.monotonic() - started, 3)
            self.recorder.emit("task.ended", task=name, seconds=seconds, outcome=outcome, error=error)

    def _end_agent(self) -> None:
        if self._agent is not None:
            self._agent.send_signal(signal.SIGTERM)
            try:
                self._agent.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._agent.kill()
                self._agent.wait(timeout=5)
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)


def add_secrets(redact: Redactor, folder: Path) -> None:
    """Tells a redactor the secrets of a run: those of the file that hands them to Terraform."""
    for file in folder.glob("operator/infra/*/run.auto.tfvars.json"):
        for key in json.loads(file.read_text()).get("ssh_host_keys", {}).values():
            redact.add("ssh host key", key["private"])


def new_run_id() -> str:
    """Sorts by time, unique between runs that start in the same second; fits into container names."""
    return time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)


def targets(root: Path) -> list[str]:
    """Names of the targets: folders of infra/ with a target.json."""
    return sorted(file.parent.name for file in (root / "infra").glob("*/target.json"))


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0
