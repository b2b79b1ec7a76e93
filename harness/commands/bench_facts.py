"""`platform bench --facts`: what asking costs. Twenty facts of every machine of a standing cluster, in four ways.

Each round asks them one way after the other, within the same minutes: by the harness's own backend (all machines side
by side, connections kept), by testinfra's paramiko and ssh backends as a test suite uses them (one machine after the
other), and by a plain shell loop over ssh. All go through the entry point. Every way must bring the same answers.
"""

from __future__ import annotations

import contextlib
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import testinfra

from harness.drivers.machines import Machines
from harness.drivers.terraform import Outputs
from harness.errors import HarnessError, Misconfigured
from harness.record.log import Recorder
from harness.runs.execution import Execution
from harness.runs.workplace import Workplace
from harness.seams.process import Processes

FACTS = (
    "cat /etc/hostname",
    "cat /etc/machine-id",
    "systemctl is-system-running",
    "systemctl is-active etcd",
    "systemctl is-active fleet",
    "systemctl is-active ssh",
    "systemctl is-enabled etcd",
    "systemctl is-enabled fleet.socket",
    "stat -c %a:%U:%G /etc/fleet/fleet.conf",
    "sha256sum /etc/fleet/fleet.conf",
    "sha256sum /usr/local/sbin/boot-machine",
    "stat -c %U:%G /home/core",
    "ls /home/core",
    "id -nG core",
    "getent passwd core",
    "uname -r",
    "dpkg-query -W -f '${Version}' etcd-server",
    "ss -Hltn 'sport = :22' | wc -l",
    "test -S /run/fleet.sock && echo socket",
    "cat /etc/platform/machine.env",
)
Answers = dict[str, list[str]]


def table_of_facts(execution: Execution, rounds: int) -> str:
    """The medians of every way, for the cluster of an execution. Raises Misconfigured before it has machines."""
    outputs = execution.outputs()
    if outputs is None:
        raise Misconfigured("this cluster has no machines yet")
    medians = bench_facts(execution.workplace, outputs, rounds)
    return "\n".join(f"{seconds:8.2f}  {way}" for way, seconds in medians.items())


def bench_facts(workplace: Workplace, outputs: Outputs, rounds: int) -> dict[str, float]:
    """Way -> median in seconds. Raises HarnessError when two ways bring different answers."""
    with tempfile.TemporaryDirectory(prefix="platform-bench-") as scratch:
        recorder = Recorder(Path(scratch) / "events.jsonl")
        config, proxied = workplace.folder / "ssh_config", _without_jump(workplace.folder / "ssh_config", Path(scratch))
        ways: dict[str, Callable[[], Answers]] = {
            "our backend": lambda: _ours(outputs, recorder),
            "testinfra, paramiko backend": lambda: _testinfra("paramiko", outputs, proxied),
            "testinfra, ssh backend": lambda: _testinfra("ssh", outputs, config),
            "plain shell loop": lambda: _shell_loop(outputs, config, Processes(recorder)),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(1, rounds + 1):
            print(f"round {number} of {rounds}, {len(outputs.machines)} machines", file=sys.stderr)
            first: Answers = {}
            for way, ask in ways.items():
                started = time.monotonic()
                answers = ask()
                seconds[way].append(time.monotonic() - started)
                first = first or answers
                if answers != first:
                    raise HarnessError(f"{way} brings other answers than {next(iter(ways))}")
        return {way: round(statistics.median(took), 2) for way, took in seconds.items()}


def _ours(outputs: Outputs, recorder: Recorder) -> Answers:
    machines = Machines(outputs, recorder)
    with contextlib.closing(machines):
        return machines.on_all(lambda name: [machines.run(name, fact).strip() for fact in FACTS])


def _testinfra(backend: str, outputs: Outputs, config: Path) -> Answers:
    hosts = {name: testinfra.get_host(f"{backend}://{name}", ssh_config=str(config)) for name in outputs.machines}
    return {name: [host.check_output(fact).strip() for fact in FACTS] for name, host in hosts.items()}


def _shell_loop(outputs: Outputs, config: Path, process: Processes) -> Answers:
    ssh = f"ssh -F {shlex.quote(str(config))}"
    script = [f"{ssh} {name} {shlex.quote(fact)}; printf '\\0'" for name in outputs.machines for fact in FACTS]
    answers = process.run(["bash", "-c", "\n".join(script)], within=3600).stdout.split("\0")
    return {
        name: [answer.strip() for answer in answers[at * len(FACTS) : (at + 1) * len(FACTS)]]
        for at, name in enumerate(outputs.machines)
    }


def _without_jump(config: Path, folder: Path) -> Path:
    """The same for testinfra's paramiko backend, which knows a ProxyCommand and no ProxyJump."""
    text = config.read_text()
    lines = [
        f"    ProxyCommand ssh -F {config} -W %h:22 {line.split()[1]}" if line.strip().startswith("ProxyJump") else line
        for line in text.splitlines()
    ]
    copy = folder / "ssh_config"
    copy.write_text("\n".join(lines) + "\n")
    return copy
