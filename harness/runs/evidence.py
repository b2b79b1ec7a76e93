"""Evidence: what is collected from every machine when something is wrong, and what it says about the layers.

The list is the one a person would work through on a live cluster, from the ground up (etcd, fleet, units, containers,
system). Collected before the teardown, also when the bring-up failed: where SSH does not answer, the target's console
is asked (infra/TARGET/target.json).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.drivers.cluster import Cluster
from harness.drivers.etcd import MEMBERS_AT_MOST
from harness.drivers.fleet import API
from harness.drivers.machines import Machines
from harness.drivers.services import Services
from harness.errors import HarnessError, PlatformWrong
from harness.record.log import Recorder
from harness.seams.process import Runner

# file name -> what is asked on each machine; order bottom-up
QUESTIONS: Mapping[str, str] = {
    "boot": "grep -E '^[A-Z_]+=' /var/lib/platform/user-data | grep -v KEY; "
    "journalctl -b -u first-boot -u filter --no-pager",
    "etcd": "systemctl status -l etcd; cat /etc/default/etcd; curl -sm 3 127.0.0.1:2379/health; echo; "
    "curl -sm 3 127.0.0.1:2379/version; echo; curl -sm 3 127.0.0.1:2379/v2/members; echo; "
    "curl -sm 3 '127.0.0.1:2379/v2/keys/_coreos.com?recursive=true'; echo; journalctl -b -u etcd --no-pager",
    "fleet": "systemctl status -l fleet fleet.socket; cat /etc/fleet/fleet.conf /etc/machine-id; "
    f"ls -l /run/fleet.sock; {API}/machines; {API}/units; {API}/state; journalctl -b -u fleet --no-pager",
    "units": "systemctl list-units --all --no-pager '*.service'; "
    'for u in /run/fleet/units/*; do [ -e "$u" ] || continue; systemctl status -l "$(basename "$u")"; '
    'journalctl -b --no-pager -u "$(basename "$u")"; done',
    # where Docker was not needed yet, a question would start it
    "containers": "systemctl is-active docker || exit; docker ps --all --no-trunc; docker images; "
    "for c in $(docker ps --all --quiet); do docker inspect $c; docker logs --tail 200 $c; done",
    "services": "curl -sm 3 '127.0.0.1:2379/v2/keys/services?recursive=true'; echo; ss -ltnp; "
    "cat /etc/platform/machine.env; systemctl is-active docker || exit; "
    "for a in $(docker ps --format '{{.Names}}' | grep -e -dynamic-amb$); do "
    "docker exec $a python3 -m ambassador.show ${a%-dynamic-amb}; done",
    "contents": "ls -lR /home/core",
    "system": "systemctl --failed --no-pager; systemctl list-jobs; df -h; free -m; date -u; uptime; "
    "journalctl -b -p warning --no-pager",
}


AMBASSADOR = "-dynamic-amb.service"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: the layer, the machine ("cluster" when it is no single one's), and what to paste."""

    layer: str
    machine: str
    finding: str
    paste: str = ""


def collect(
    machines: Machines,
    folder: Path,
    recorder: Recorder,
    process: Runner,
    console: Sequence[str],
    run_id: str,
) -> None:
    """Writes the answers of every machine to `folder`/MACHINE/QUESTION.txt; a machine that is silent says so there."""

    def ask(name: str) -> None:
        (folder / name).mkdir(parents=True, exist_ok=True)
        silent: HarnessError | None = None
        for question, command in QUESTIONS.items():
            file = folder / name / f"{question}.txt"
            root = machines[name].backend.get_command("sudo sh -c %s 2>&1", command)
            try:
                # a machine that was silent once is not waited for again
                answer = "" if silent else machines.run(name, root, ok=range(256))
            except HarnessError as failed:
                silent = failed
            if silent:
                answer = f"{silent}\n\nfrom the console:\n{_console(name, command)}"
            file.write_text(recorder.redact(f"$ {command}\n{answer}"))
            recorder.emit("artefact", path=str(file), about=f"{question} of {name}")

    def _console(name: str, command: str) -> str:
        argv = [part.format(run_id=run_id, machine=name, command=command) for part in console]
        try:
            return process.run(argv, ok=None, within=30).stdout if argv else "this target has none"
        except HarnessError as silent:
            return str(silent)

    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(ask, machines.names))


def diagnose(cluster: Cluster, units: Sequence[str]) -> list[Finding]:
    """What is wrong, from the lowest layer up. A layer that is wrong ends it: what stands on it cannot be judged."""
    machines, fleet = cluster.machines, cluster.fleet

    def loaded() -> list[str]:
        """A unit that was never loaded is not wrong: the runbook did not come that far."""
        held = fleet.units()
        return [unit for unit in units if unit in held]

    layers: dict[str, Callable[[], list[Finding]]] = {
        "provision": lambda: [
            Finding("provision", name, reason, f"ssh core@{machines.addresses[name]}")
            for name, reason in machines.unreachable().items()
        ],
        "bootstrap": lambda: _bootstrap(cluster),
        "schedule": lambda: [
            Finding("schedule", "cluster", f"{placement.unit}: {placement.objection}", "fleetctl list-unit-files")
            for placement in fleet.placements(loaded(), "")
            if placement.objection
        ],
        "unit": lambda: [
            Finding(
                "unit",
                state.machine,
                f"{unit}: {state.short}",
                f"fleetctl status {unit.removesuffix('@' + state.machine)}",
            )
            for unit, state in cluster.units.now(loaded()).items()
            if not state.runs
        ],
        "discovery": lambda: _discovery(cluster.services, loaded()),
    }
    for layer, look in layers.items():
        try:
            findings = look()
        except PlatformWrong as failed:  # what cannot be asked is what is wrong
            findings = [Finding(layer, failed.where or "cluster", str(failed), failed.paste)]
        if findings:
            return findings
    return []


def _bootstrap(cluster: Cluster) -> list[Finding]:
    machines, fleet = cluster.machines, cluster.fleet
    listed = {machine.name for machine in fleet.machines()}
    findings = [
        Finding("bootstrap", name, f"etcd: {objection}", "ETCDCTL_API=2 etcdctl cluster-health")
        for name, objection in cluster.etcd.problems(MEMBERS_AT_MOST).items()
    ]
    findings += [
        Finding("bootstrap", name, "fleet does not list it", "fleetctl list-machines")
        for name in machines.names
        if name not in listed
    ]
    failed = machines.on_all(
        lambda name: machines.run(name, "systemctl --failed --no-legend --plain | cut -d' ' -f1").split()
    )
    units = set(fleet.units()) if listed else set()  # those are judged by their own layer
    return findings + [
        Finding("bootstrap", name, f"{unit} is failed", f"systemctl status {unit}")
        for name, names in failed.items()
        for unit in names
        if unit not in units
    ]


def _discovery(services: Services, units: Sequence[str]) -> list[Finding]:
    findings = []
    for service in (unit.removesuffix(AMBASSADOR) for unit in units if unit.endswith(AMBASSADOR)):
        runs, registered = services.published(service), services.registered(service)
        if runs != registered:
            where = f"{service} runs at {', '.join(sorted(runs)) or 'no address'}, registered is"
            paste = f"curl http://127.0.0.1:2379/v2/keys/services/{service}?recursive=true"
            findings.append(
                Finding("discovery", "cluster", f"{where} {', '.join(sorted(registered)) or 'nothing'}", paste)
            )
        findings += [
            Finding(
                "discovery",
                name,
                f"the ambassador of {service} has {dict(ambassador.servers) or 'no servers'}",
                f"docker exec {service}-dynamic-amb python3 -m ambassador.show {service}",
            )
            for name, ambassador in services.ambassadors(service).items()
            if ambassador.healthy != runs
        ]
    return findings


def record(recorder: Recorder, findings: Sequence[Finding]) -> None:
    """Puts findings into the record; the first has the lowest layer that is wrong."""
    if findings:
        recorder.emit("diagnosis", layer=findings[0].layer, findings=[asdict(finding) for finding in findings])
