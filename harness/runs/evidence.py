"""Evidence: what is collected from every machine when something is wrong.

The list is the one a person would work through on a live cluster, from the ground up (etcd, fleet, units, containers,
system). Collected before the teardown, also when the bring-up failed: where SSH does not answer, the target's console
is asked (infra/TARGET/target.json).
"""

from __future__ import annotations

import secrets
import shlex
import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from harness import files
from harness.drivers.machines import Machines
from harness.errors import HarnessError
from harness.record.log import Recorder
from harness.seams.background import begun, result_by
from harness.seams.patience import patience
from harness.seams.process import Runner

# Seconds of the journals around a moment, and lines of them
AROUND = 5.0
LINES = 20

# Seconds for all machines to tell all that is asked, and for one answer
COLLECTED_WITHIN, ANSWER_LIMIT = 20.0, 4
JOURNALS_WITHIN, CONSOLE_LIMIT = 10.0, 8.0
# Begins an answer, in what a machine prints: nothing that runs there can know it
MARK = f"@@evidence-{secrets.token_hex(4)}"
ASK = """ends=$(($(date +%s) + {seconds}))
ask() {{
    printf '\\n{mark} %s\\n' "$1"
    [ "$(date +%s)" -lt "$ends" ] || {{ echo 'left out: the time was over'; return; }}
    timeout {limit} sh -c "$2" 2>&1
    [ $? != 124 ] || echo 'cut off: no end within {limit} s'
}}
"""

# etcd's and fleet's HTTP APIs; one that does not answer is not asked for more
ETCD = "curl -sm 2 --noproxy '*' 127.0.0.1:2379"
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
    "filter": "nft list ruleset; "
    "for p in ip ip6; do ! grep -q . /proc/net/${p}_tables_names || ${p}tables-legacy-save; done",
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
    within: float = COLLECTED_WITHIN,
) -> None:
    """Writes the answers of every machine to `folder`/MACHINE/QUESTION.txt, masked; all are asked at once, and together
    they take `within` seconds at most: what is not told by then says so. A machine that is silent is asked at its
    console, and one that is known to be is not waited for."""
    within *= patience()
    script = _script(within - ANSWER_LIMIT)

    def ask(name: str) -> str:
        reason = f"machine {name} does not answer over SSH" if name in silent else ""
        if not reason:
            try:
                return machines.run(name, machines[name].backend.get_command("sudo sh -c %s 2>&1", script), kept=0)
            except HarnessError as failed:
                reason = str(failed)
        argv = [part.format(run_id=run_id, machine=name, command=script) for part in console]
        try:
            told = process.run(argv, ok=None, within=CONSOLE_LIMIT).stdout if argv else "this target has no console"
        except HarnessError as failed:
            told = str(failed)
        return f"{_part('silent')}{reason}\n{_part('console')}{told}"

    ends = time.monotonic() + within
    asked = {name: begun(partial(ask, name)) for name in machines.names}
    for name, answer in asked.items():
        late = f"{_part('silent')}machine {name} did not tell all of it within {within:g} s\n"
        _write(folder / name, result_by(answer, ends) or late, recorder)


def _part(name: str = "") -> str:
    """How an answer begins, as ASK has it."""
    return f"\n{MARK} {name}\n" if name else f"\n{MARK} "


def _script(seconds: float) -> str:
    """Asks all questions, from the bottom up; each has a limit, and when the time is over the others are left out."""
    asked = (f"ask {name} {shlex.quote(command)}" for name, command in QUESTIONS.items())
    return ASK.format(seconds=max(int(seconds), 1), limit=ANSWER_LIMIT, mark=MARK) + "\n".join(asked)


def _write(folder: Path, told: str, recorder: Recorder) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part in told.split(_part())[1:]:
        question, _, answer = part.partition("\n")
        asked = f"$ {QUESTIONS[question]}\n" if question in QUESTIONS else ""
        file = folder / f"{question}.txt"
        files.put(file, recorder.redact(asked + answer), sync=False)
        recorder.emit("artefact", path=str(file), about=f"{question} of {folder.name}")


def journal_around(
    machines: Machines, moment: float, silent: Collection[str] = (), within: float = JOURNALS_WITHIN
) -> list[dict[str, Any]]:
    """Of the lines of all journals in the seconds around a moment (seconds since the epoch) those nearest to it, in the
    order of time: machine, time, text. Of a machine that is silent, or does not tell them `within` so many seconds,
    there are none, and one that is known to be is not waited for."""
    since, until = moment - AROUND, moment + AROUND
    command = (
        f"sudo journalctl --quiet --no-hostname --output=short-unix --since=@{since:.0f} --until=@{until:.0f}"
        " | grep -E '^[0-9]' | grep -vE ' (sudo|sshd|systemd-logind)\\[|\"(GET|HEAD) '"
        f" | awk '{{ d = $1 - {moment:f}; printf \"%f %s\\n\", (d < 0 ? -d : d), $0 }}'"
        f" | sort -n | head -n {LINES} | cut -d' ' -f2- | cut -c1-300"
    )

    def ask(name: str) -> list[dict[str, Any]]:
        try:
            printed = machines.run(name, command)
        except HarnessError:
            return []
        rows = (line.partition(" ") for line in printed.splitlines())
        return [{"machine": name, "time": float(time), "text": text} for time, _, text in rows]

    ends = time.monotonic() + within * patience()
    asked = [begun(partial(ask, name)) for name in machines.names if name not in silent]
    lines = [line for answer in asked for line in result_by(answer, ends) or ()]
    nearest = sorted(lines, key=lambda line: abs(float(line["time"]) - moment))[:LINES]
    return sorted(nearest, key=lambda line: float(line["time"]))
