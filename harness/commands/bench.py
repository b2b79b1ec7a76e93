"""`platform bench`: what the runbook costs, and what of it is our own.

Each round measures side by side, on the same machine within a minute: an acceptance run, and its commands typed by a
plain shell script. Medians over the rounds are printed; the figures of single runs are in their records.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.reports import runbook

READY = "fleet lists every machine"


def bench(root: Path, rounds: int) -> dict[str, float]:
    """Figure -> median in seconds over `rounds` rounds. Raises HarnessError when a run fails."""
    figures: dict[str, list[float]] = {}
    for number in range(1, rounds + 1):
        print(f"round {number} of {rounds}", file=sys.stderr)
        for name, seconds in {**acceptance(root), **plain(root)}.items():
            figures.setdefault(name, []).append(seconds)
    return {name: round(statistics.median(values), 2) for name, values in figures.items()}


def acceptance(root: Path) -> dict[str, float]:
    """One warm acceptance run: whole, by stage, the runbook's commands, from apply to a cluster that fleet lists."""
    started = time.monotonic()
    done = subprocess.run([root / "bin/platform", "acceptance"], capture_output=True, text=True, check=False)
    whole = time.monotonic() - started
    if done.returncode != 0:
        raise HarnessError(f"an acceptance run ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    newest = max((root / ".runs").glob("*/run.json"), key=lambda file: file.stat().st_mtime)
    run = json.loads(newest.read_text())
    typed = [command for command in run["commands"] if command["typed"]]
    apply = next(command for command in typed if " apply " in command["line"])
    ready = next(wait for wait in run["waits"] if wait["what"] == READY)
    return {
        "acceptance, whole": whole,
        **{f"acceptance, stage {stage['stage']}": stage["seconds"] for stage in run["stages"]},
        "acceptance, the runbook's commands": sum(command["seconds"] for command in typed),
        "from apply to all machines in fleet": ready["ended"] - apply["started"],
        "apply alone": apply["seconds"],
    }


def plain(root: Path) -> dict[str, float]:
    """The same commands typed by a plain shell script into the operator's shell, each timed by the script itself."""
    lines = runbook.commands_of_readme((root / "README.md").read_text())
    figures = typed_by_hand(root, script(lines))
    return {
        "plain script, the runbook's commands": sum(seconds for what, seconds in figures if what != "idle"),
        "apply of machines that do nothing": sum(seconds for what, seconds in figures if what == "idle"),
    }


# Before the real machines: the same apply with machines that only sleep, then away with them.
IDLE = """
image=$(python3 -c 'import json; print(json.load(open("infra/local/run.auto.tfvars.json"))["machine_image"])')
printf 'FROM %s\nENTRYPOINT ["sleep", "infinity"]\n' $image | DOCKER_BUILDKIT=0 docker build -q -t platform-idle - >&2
tf() { command=$1; shift; terraform -chdir=infra/local $command -var-file=../../terraform.tfvars "$@" >&2; }
tf plan -var machine_image=platform-idle -out=idle.plan
t=$(now)
terraform -chdir=infra/local apply idle.plan >&2
echo "figure $(now) $t idle"
tf destroy -auto-approve -refresh=false
docker rmi platform-idle >&2
"""
# What a person looks at before the next line.
LOOK_FIRST = {
    "fleetctl list-machines": "until [ $(fleetctl list-machines --no-legend 2>/dev/null | wc -l) = 3 ]; "
    "do sleep 0.1; done",
    "./bin/deploy-blog blog": "until [ $(fleetctl list-units --no-legend | grep -c running) = 3 ]; do sleep 0.1; done",
}


def script(lines: Iterable[str]) -> str:
    """A shell script that types these lines, prints behind each the seconds it took, and stops where one fails."""
    body = ["set -e", "now() { date +%s.%N; }"]
    for line in lines:
        body += [look for before, look in LOOK_FIRST.items() if line.startswith(before)]
        redirected = line if ">" in line else f"{line} >&2"
        body += ["t=$(now)", redirected, f'echo "figure $(now) $t {line.split()[0]}"']
        if line.endswith(" init"):
            body.append(IDLE)
    return "\n".join(body) + "\n"


def typed_by_hand(root: Path, typed: str) -> list[tuple[str, float]]:
    done = subprocess.run([root / "bin/platform", "shell"], input=typed, capture_output=True, text=True, check=False)
    figures = [line.split(maxsplit=3) for line in done.stdout.splitlines() if line.startswith("figure ")]
    if done.returncode != 0 or not figures:
        raise HarnessError(f"the plain script ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return [(what, float(end) - float(start)) for _, end, start, what in figures]


def shown(figures: dict[str, Any]) -> str:
    """The figures as a table, with the ratio that this is about."""
    ratio = figures["acceptance, the runbook's commands"] / figures["plain script, the runbook's commands"]
    rows = [*figures.items(), ("ratio of the commands, acceptance to plain script", round(ratio, 3))]
    return "\n".join(f"{value:8.2f}  {name}" for name, value in rows)
