"""Evidence: what is collected from every machine when something is wrong.

The list is the one a person would work through on a live cluster, from the ground up (etcd, fleet, units, containers,
system). Collected before the teardown, also when the bring-up failed: where SSH does not answer, the target's console
is asked (infra/TARGET/target.json).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harness.drivers.machines import Machines
from harness.errors import HarnessError
from harness.record.log import Recorder
from harness.seams.process import Runner

# Seconds of the journals around a moment, and lines of them
AROUND = 5.0
LINES = 20

# etcd's and fleet's HTTP APIs; one that does not answer is not asked for more
ETCD = "curl -sm 2 127.0.0.1:2379"
FLEET = "curl -sfm 2 --unix-socket /run/fleet.sock http://fleet/fleet/v1"

# file name -> what is asked on each machine; order bottom-up
QUESTIONS: Mapping[str, str] = {
    "boot": "grep -E '^[A-Z_]+=' /var/lib/platform/user-data | grep -v KEY; "
    "journalctl -b -u first-boot -u filter --no-pager",
    "etcd": "systemctl status -l etcd; cat /etc/default/etcd; "
    f"{ETCD}/health && echo && {ETCD}/version && echo && {ETCD}/v2/members && echo && "
    f"{ETCD}'/v2/keys/_coreos.com?recursive=true'; echo; journalctl -b -u etcd --no-pager",
    "fleet": "systemctl status -l fleet fleet.socket; cat /etc/fleet/fleet.conf /etc/machine-id; "
    f"ls -l /run/fleet.sock; {FLEET}/machines && {FLEET}/units && {FLEET}/state; journalctl -b -u fleet --no-pager",
    "units": "systemctl list-units --all --no-pager '*.service'; "
    'for u in /run/fleet/units/*; do [ -e "$u" ] || continue; systemctl status -l "$(basename "$u")"; '
    'journalctl -b --no-pager -u "$(basename "$u")"; done',
    # where Docker was not needed yet, a question would start it
    "containers": "systemctl is-active docker || exit; docker ps --all --no-trunc; docker images; "
    "for c in $(docker ps --all --quiet); do docker inspect $c; docker logs --tail 200 $c; done",
    "services": f"{ETCD}'/v2/keys/services?recursive=true'; echo; ss -ltnp; cat /etc/platform/machine.env",
    "contents": "ls -lR /home/core",
    "system": "systemctl --failed --no-pager; systemctl list-jobs; df -h; free -m; date -u; uptime; "
    "journalctl -b -p warning --no-pager",
}


def collect(
    machines: Machines,
    folder: Path,
    recorder: Recorder,
    process: Runner,
    console: Sequence[str],
    run_id: str,
    silent: Collection[str] = (),
) -> None:
    """Writes the answers of every machine to `folder`/MACHINE/QUESTION.txt; a machine that is silent says so there, and
    one that is known to be is not waited for."""

    def ask(name: str) -> None:
        (folder / name).mkdir(parents=True, exist_ok=True)
        reason = f"machine {name} does not answer over SSH" if name in silent else ""
        for question, command in QUESTIONS.items():
            file = folder / name / f"{question}.txt"
            root = machines[name].backend.get_command("sudo sh -c %s 2>&1", command)
            try:
                # a machine that was silent once is not waited for again
                answer = "" if reason else machines.run(name, root, ok=range(256))
            except HarnessError as failed:
                reason = str(failed)
            if reason:
                answer = f"{reason}\n\nfrom the console:\n{_console(name, command)}"
            file.write_text(recorder.redact(f"$ {command}\n{answer}"))
            recorder.emit("artefact", path=str(file), about=f"{question} of {name}")

    def _console(name: str, command: str) -> str:
        argv = [part.format(run_id=run_id, machine=name, command=command) for part in console]
        try:
            return process.run(argv, ok=None, within=30).stdout if argv else "this target has none"
        except HarnessError as failed:
            return str(failed)

    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(ask, machines.names))


def journal_around(machines: Machines, moment: float, silent: Collection[str] = ()) -> list[dict[str, Any]]:
    """Of the lines of all journals in the seconds around a moment (seconds since the epoch) those nearest to it, in the
    order of time: machine, time, text. Of a machine that is silent there are none, and one that is known to be is not
    waited for."""
    since, until = moment - AROUND, moment + AROUND
    command = (
        f"sudo journalctl --quiet --no-hostname --output=short-unix --since=@{since:.0f} --until=@{until:.0f}"
        " | grep -E '^[0-9]' | grep -vE ' (sudo|sshd|systemd-logind)\\[|\"(GET|HEAD) '"
        f" | awk '{{ d = $1 - {moment:f}; printf \"%f %s\\n\", (d < 0 ? -d : d), $0 }}'"
        f" | sort -n | head -n {LINES} | cut -d' ' -f2- | cut -c1-300"
    )

    def ask(name: str) -> list[dict[str, Any]]:
        if name in silent:
            return []
        try:
            printed = machines.run(name, command)
        except HarnessError:
            return []
        rows = (line.partition(" ") for line in printed.splitlines())
        return [{"machine": name, "time": float(time), "text": text} for time, _, text in rows]

    lines = [line for rows in machines.on_all(ask).values() for line in rows]
    nearest = sorted(lines, key=lambda line: abs(float(line["time"]) - moment))[:LINES]
    return sorted(nearest, key=lambda line: float(line["time"]))
