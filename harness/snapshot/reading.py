"""From what collect.sh prints to a Machine: what each part says, and nothing made of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from harness.snapshot.data import Container, EtcdHere, Line, Machine, Release, Room, Unit

PART = re.compile(r"^@@ (\S+) ([0-9.]+)\n(.*?)\n@\. \1 (\d+)$", re.MULTILINE | re.DOTALL)
ANY_PART = re.compile(r"^part (\S+)", re.MULTILINE)
# systemd's units of time, in seconds
TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
# HAProxy's columns: server's address, state of operation (2 is up), administrative state, port
ADDRESS, OPERATION, ADMINISTRATION, PORT = 4, 5, 6, 18
MAINTENANCE = 1


class Parts:
    """The parts of what a machine printed, by name; those that are cut off or failed are missing."""

    def __init__(self, printed: str) -> None:
        found = PART.findall(printed)
        self.texts = {name: text for name, _, text, status in found if status == "0"}
        self.times = {name: float(time) for name, time, _, _ in found}
        self.missing: list[str] = []

    def read(self, name: str, how: Callable[[str], Any], instead: Any = None) -> Any:
        """A part as `how` reads it; `instead` where it is missing, or says something else."""
        try:
            return how(self.texts[name])
        except (KeyError, ValueError, IndexError, TypeError, AttributeError):
            self.missing.append(name)
            return instead


def machine(printed: str, sent: float, received: float, helpers: Mapping[str, str]) -> Machine:
    """What a machine printed that was asked at `sent` and had answered at `received`."""
    parts = Parts(printed)
    identity = parts.read("identity", str.split, [])
    identity = [*identity, "", "", "", "", ""][:5]
    state, *failed = parts.read("system", str.split, [""]) or [""]
    texts = parts.read("texts", _digests, {})
    services = {
        name: Unit(**fields, text=texts.get(name, "")) for name, fields in parts.read("units", _units, {}).items()
    }
    rooms = parts.read("room", _rooms, {})
    load = rooms.pop("load", Room(size=0, free=0))
    return Machine(
        asked=sent,
        seconds=round(received - sent, 3),
        machine_id=identity[0],
        boot=f"{identity[1]} {identity[2]}".strip(),
        host_key=f"{identity[3]} {identity[4]}".strip(),
        clock_ahead=_ahead(parts.times.get("identity", sent), sent, received),
        state=state,
        failed=tuple(failed),
        units=services,
        containers=parts.read("containers", _containers),
        ambassadors=parts.read("ambassadors", _ambassadors, {}),
        etcd=parts.read("etcd", _etcd),
        fleet=parts.read("fleet", _fleet),
        listening=parts.read("listening", lambda text: tuple(map(_listener, text.splitlines())), ()),
        filter=parts.read("filter", str.strip, ""),
        sshd=parts.read("sshd", lambda text: dict(line.split(" ", 1) for line in text.splitlines()), {}),
        rooms=rooms,
        load=load.size / 1000,
        journal=parts.read("journal", lambda text: tuple(map(_line, filter(None, text.splitlines()))), ()),
        contents=parts.read("contents", _contents, {}),
        helpers=parts.read("helpers", lambda text: _differing(_digests(text), helpers), {}),
        missing=tuple(parts.missing),
    )


def _ahead(told: float, sent: float, received: float) -> float:
    """Seconds by which a clock is ahead that said `told` at some moment between the two; rounded up to none."""
    if sent - 0.05 <= told <= received + 0.05:
        return 0.0
    return round(told - (received if told > received else sent), 3)


def _digests(text: str) -> dict[str, str]:
    """What sha256sum prints: path -> digest."""
    return {
        path.removeprefix("./"): digest for digest, path in (line.split("  ", 1) for line in text.splitlines() if line)
    }


def _differing(held: Mapping[str, str], intended: Mapping[str, str]) -> dict[str, str]:
    return {path: held.get(path, "") for path, digest in intended.items() if held.get(path) != digest}


def _units(text: str) -> dict[str, dict[str, Any]]:
    units = {}
    for block in text.strip().split("\n\n"):
        shown = dict(line.split("=", 1) for line in block.splitlines())
        units[shown["Id"]] = {
            "load": shown["LoadState"],
            "active": shown["ActiveState"],
            "sub": shown["SubState"],
            "result": shown["Result"],
            "restarts": int(shown.get("NRestarts") or 0),
            "main_pid": int(shown.get("MainPID") or 0),
            "exit_code": int(shown.get("ExecMainCode") or 0),
            "exit_status": int(shown.get("ExecMainStatus") or 0),
            "since": _moment(shown["StateChangeTimestamp"]),
            "restart": shown.get("Restart", ""),
            "restart_sec": seconds(shown.get("RestartUSec", "")),
            "start_limit_interval": seconds(shown["StartLimitIntervalUSec"]),
            "start_limit_burst": int(shown["StartLimitBurst"]),
            "fragment": shown["FragmentPath"],
            "drop_ins": tuple(shown["DropInPaths"].split()),
            "needs_reload": shown["NeedDaemonReload"] == "yes",
        }
    return units


def _moment(text: str) -> float | None:
    return float(text.removeprefix("@")) if text.startswith("@") else None


def seconds(text: str) -> float | None:
    """A span of time as systemd prints it, such as `1min 30s`; None for what is none (`infinity`, nothing)."""
    total = 0.0
    for word in text.split():
        found = re.fullmatch(r"([0-9.]+)([a-z]+)", word)
        if found is None or found[2] not in TIMES:
            return None
        total += float(found[1]) * TIMES[found[2]]
    return total if text else None


def _containers(text: str) -> dict[str, Container]:
    listed, *ended = text.split("\n")
    details = {item["Id"]: item["State"] for item in map(json.loads, filter(None, ended))}
    found = {}
    for item in json.loads(listed):
        ports: dict[int, list[str]] = {}
        for port in item.get("Ports") or ():
            if "PublicPort" in port:
                ports.setdefault(port["PrivatePort"], []).append(f"{port['IP']}:{port['PublicPort']}")
        end = details.get(item["Id"])
        found[item["Names"][0].removeprefix("/")] = Container(
            image=item["ImageID"].removeprefix("sha256:")[:16],
            state=item["State"],
            ports={port: tuple(sorted(addresses)) for port, addresses in ports.items()},
            exit_status=end["ExitCode"] if end else None,
            out_of_memory=bool(end and end["OOMKilled"]),
            finished=end["FinishedAt"] if end else "",
        )
    return found


def _ambassadors(text: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        if line.endswith("-dynamic-amb") and line.startswith("# "):
            servers: dict[str, str] = {}
            found[line.removeprefix("# ").removesuffix("-dynamic-amb")] = servers
            continue
        columns = line.split()
        if len(columns) <= PORT or columns[0] == "#":
            continue
        if not int(columns[ADMINISTRATION]) & MAINTENANCE:
            servers[f"{columns[ADDRESS]}:{columns[PORT]}"] = "UP" if columns[OPERATION] == "2" else "DOWN"
    return found


def _etcd(text: str) -> EtcdHere:
    health, own, members = (json.loads(line) if line.strip() else {} for line in text.split("\n")[:3])
    return EtcdHere(
        healthy=health.get("health") == "true",
        name=own.get("name", ""),
        role=own.get("state", ""),
        leader=(own.get("leaderInfo") or {}).get("leader", ""),
        members=tuple(sorted(member["name"] for member in members["members"])),
    )


def _fleet(text: str) -> tuple[str, ...]:
    return tuple(sorted(item["id"] for item in json.loads(text)["machines"]))


def _listener(line: str) -> tuple[str, str]:
    address, _, program = line.partition(" ")
    return address, program


def _rooms(text: str) -> dict[str, Room]:
    rooms = {}
    memory = {}
    for name, *figures in map(str.split, text.strip().splitlines()):
        if name == "load":
            rooms["load"] = Room(size=int(1000 * float(figures[0])), free=int(figures[1]))
        elif name.endswith(":"):
            memory[name] = int(float(figures[0]))
        else:
            rooms[name] = Room(size=int(figures[0]), free=int(figures[1]))
    return rooms | {"memory": Room(size=memory["MemTotal:"], free=memory["MemAvailable:"])}


def _line(line: str) -> Line:
    time, _, text = line.partition(" ")
    return Line(time=float(time), text=text)


def _contents(text: str) -> dict[str, Release]:
    rows = (line.split() for line in text.splitlines())
    return {row[0]: Release(version=row[1], files=int(row[2]), digest=row[3]) for row in rows if row}
