"""A checkout, a run and what is around them, the least that a workplace needs: no Docker, nobody's own ssh-agent."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.drivers.shell import OperatorShell
from harness.drivers.terraform import Outputs
from harness.record.log import read_events
from harness.runs.agent import Keys
from harness.runs.run import Run
from harness.runs.workplace import OPERATORS_FILES, Workplace
from harness.seams.process import Runner

# of each process that runs tests its own: what a teardown looks for, it ends
RUN_ID = f"20260801-120000-{os.getpid() & 0xFFFF:04x}"
EXAMPLE = '# a comment\nmachines = 3  # of them\ndiscovery_url = ""\n'
# What a target is handed, as far as it declares it
HANDED = (
    "run_id", "patience", "processors", "image_registry", "machine_image", "name_server", "name_key", "ssh_public_key",
    "ssh_host_keys",
)  # fmt: skip
PERSONS_AGENT = "/the/persons/own"
OUTPUTS = Outputs(
    entry_point="192.0.2.10",
    machines={"coreos-0": "192.0.2.10", "coreos-1": "192.0.2.11", "coreos-2": "192.0.2.12"},
    ssh_user="core",
    known_hosts="192.0.2.10 ssh-ed25519 AAAA\n",
    sites={"blog": "genkisugimoto.com", "jpblog": "jp.genkisugimoto.com"},
    name_server="192.0.2.4",
    entry_points=("coreos-0", "coreos-1", "coreos-2"),
)


def as_printed(outputs: Outputs) -> str:
    """The outputs as `terraform output -json` prints them."""
    values = {
        "entrypoint-ip": outputs.entry_point, "machines": outputs.machines, "ssh-user": outputs.ssh_user,
        "known-hosts": outputs.known_hosts, "sites": outputs.sites, "name-server": outputs.name_server,
        "entry-points": list(outputs.entry_points),
    }  # fmt: skip
    return json.dumps({name: {"value": value} for name, value in values.items()})


def program(folder: Path, name: str, script: str) -> Path:
    """Puts a program into folder/bin."""
    file = folder / "bin" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(script)
    file.chmod(0o755)
    return file


@contextmanager
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """tmp_path/bin first on PATH, with a Docker client that fails; a temporary folder and a cache of the test's own; of
    the person an agent that does not answer. Gives the temporary folder."""
    program(tmp_path, "docker", "#!/bin/sh\nexit 1\n")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("PLATFORM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SSH_AUTH_SOCK", PERSONS_AGENT)
    for name in (
        "SSH_AGENT_PID", "DISCOVERY_SERVICE", "IMAGE_REGISTRY", "MACHINE_IMAGE", "NAME_SERVER", "NAME_KEY",
        "PLATFORM_BEGAN", "PLATFORM_RUN",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    # the path of a socket has 108 bytes at most: tmp_path is too long for one
    folder = tempfile.mkdtemp(prefix="t-", dir="/tmp")
    monkeypatch.setattr(tempfile, "tempdir", folder)
    yield Path(folder)
    shutil.rmtree(folder)


def declaring(names: Iterable[str]) -> str:
    """Variables as a root module declares them."""
    return "".join(f'variable "{name}" {{\n  type = string\n}}\n' for name in names)


def checkout(root: Path) -> Path:
    """A checkout of the least that a run copies, and leaves out."""
    for name in OPERATORS_FILES:
        if "." not in name:
            (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("infra/local/target.json", "infra/local/terraform.tfvars", "infra/local/.terraform/x", "bin/platform"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("{}")
    (root / "infra/local/variables.tf").write_text(declaring(HANDED))
    (root / "terraform.example.tfvars").write_text(EXAMPLE)
    (root / "README.md").write_text("## Operation\n\n```\n$ true\n```\n")
    return root


@contextmanager
def a_run(root: Path, process: Runner | None = None, run_id: str = RUN_ID) -> Iterator[Run]:
    """A run, whose commands are started by `process`."""
    run = Run(root, run_id)
    run.process = process or run.process
    yield run
    run.recorder.close()


def recorded(run: Run, *kinds: str) -> list[dict[str, Any]]:
    return [event for event in read_events(run.recorder.path) if event["kind"] in kinds]


class FakeAgent:
    """An ssh-agent that nobody started; it ends when it is asked, or raises."""

    def __init__(self, raises: BaseException | None = None) -> None:
        self.raises = raises
        self.ended = 0
        self.socket = Path("/an/agents/socket")
        self.variables = {"SSH_AUTH_SOCK": str(self.socket), "SSH_AGENT_PID": "4194304"}

    def end(self) -> None:
        self.ended += 1
        if self.raises is not None:
            raise self.raises


def kept_run(root: Path) -> Path:
    """The folder of a run of this checkout whose cluster stands."""
    run = Run(root, RUN_ID)
    place = Workplace(run, run.folder)
    place.operators.mkdir()
    (place.operators / "infra").symlink_to(root / "infra")
    OperatorShell.open(run.process, place.shell_state, place.operators, {**os.environ, "TARGET": "local"})
    place.put_key(Keys.generate("operator@x").private)
    run.recorder.close()
    return place.folder
