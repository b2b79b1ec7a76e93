"""From what collect.sh prints to a Machine: what each part says, and nothing made of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, get_type_hints

import msgspec

from harness.model import ruleset
from harness.snapshot.data import Container, EtcdHere, Image, Line, Machine, Release, Room, Unit

PART = re.compile(r"^@@ (\S+) ([0-9]+\.[0-9]+)\n(.*?)\n@\. \1 (\d+)$", re.MULTILINE | re.DOTALL)
# systemd's units of time, in seconds
TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
TIMES |= {"month": 2629800.0, "y": 31557600.0}
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
        """A part as `how` reads it; `instead` where it is missing, or says something else than `how` promises."""
        try:
            found = how(self.texts[name])
            return msgspec.json.decode(msgspec.json.encode(found), type=_promised(how))
        except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError):
            self.missing.append(name)
            return instead


@cache
def _promised(how: Callable[[str], Any]) -> Any:
    return get_type_hints(how)["return"]


def machine(printed: str, sent: float, received: float, helpers: Mapping[str, str]) -> Machine:
    """What a machine printed that was asked at `sent` and had answered at `received`."""
    parts = Parts(printed)
    identity = parts.read("identity", _words, [])
    identity = [*identity, "", "", "", "", ""][:5]
    state, *failed = parts.read("system", _words, [""]) or [""]
    texts = parts.read("texts", _digests, {})
    units = {
        name: msgspec.structs.replace(unit, text=texts.get(name, ""))
        for name, unit in parts.read("units", _units, {}).items()
    }
    rooms = parts.read("room", _rooms, {})
    load = rooms.pop("load", Room(size=0, free=0))
    held = parts.read("helpers", _digests)
    return Machine(
        asked=sent,
        seconds=round(received - sent, 3),
        worked=round(max(parts.times.values(), default=0.0) - min(parts.times.values(), default=0.0), 3),
        machine_id=identity[0],
        boot=f"{identity[1]} {identity[2]}".strip(),
        host_key=f"{identity[3]} {identity[4]}".strip(),
        clock_ahead=_ahead(parts.times.get("identity", sent), sent, received),
        state=state,
        failed=tuple(failed),
        units=units,
        containers=parts.read("containers", _containers),
        images=parts.read("images", _images),
        apps=parts.read("apps", _apps, {}),
        ambassadors=parts.read("ambassadors", _ambassadors, {}),
        routes=parts.read("routes", _routes, {}),
        etcd=_with_metrics(parts.read("etcd", _etcd), parts.read("metrics", _metrics, {})),
        fleet=parts.read("fleet", _fleet),
        reached=parts.read("reached", _reached, {}),
        listening=parts.read("listening", _listening, ()),
        filter=parts.read("filter", _stripped, ""),
        foreign_rules=parts.read("ruleset", _foreign_rules, ()),
        sshd=parts.read("sshd", _sshd, {}),
        operator=parts.read("operator", _operator) if "@@ operator " in printed else None,
        rooms=rooms,
        load=load.size / 1000,
        processors=max(load.free, 1),
        journal=parts.read("journal", _journal, ()),
        contents=parts.read("contents", _contents, {}),
        helpers=_differing(held, helpers) if held is not None else {},
        missing=tuple(parts.missing),
    )


def _ahead(told: float, sent: float, received: float) -> float:
    """Seconds by which a clock is ahead that said `told` at some moment between the two; rounded up to none."""
    if sent - 0.05 <= told <= received + 0.05:
        return 0.0
    return round(told - (received if told > received else sent), 3)


def _words(text: str) -> list[str]:
    return text.split()


def _stripped(text: str) -> str:
    return text.strip()


def _foreign_rules(text: str) -> tuple[str, ...]:
    known = (line.removeprefix("known ").rpartition(" ")[0] for line in _lines(text) if line.startswith("known "))
    return ruleset.foreign(text, set(known))


def _digests(text: str) -> dict[str, str]:
    """What sha256sum prints: path -> digest."""
    return {path.removeprefix("./"): digest for digest, path in (line.split("  ", 1) for line in _lines(text))}


def _differing(held: Mapping[str, str], intended: Mapping[str, str]) -> dict[str, str]:
    return {path: held.get(path, "") for path, digest in intended.items() if held.get(path) != digest}


def _lines(text: str) -> list[str]:
    """Those that hold something. A line ends at LF only: other ends may be in what a program said."""
    return [line for line in text.split("\n") if line]


def _units(text: str) -> dict[str, Unit]:
    units: dict[str, Unit] = {}
    changed: list[str] | None = None
    for block in text.strip().split("\n\n"):
        shown = dict(line.split("=", 1) for line in _lines(block))
        if "Changed" in shown:
            changed = shown["Changed"].split()
            continue
        units[shown["Id"]] = Unit(
            load=shown["LoadState"],
            active=shown["ActiveState"],
            sub=shown["SubState"],
            result=shown["Result"],
            restarts=int(shown.get("NRestarts") or 0),
            main_pid=int(shown.get("MainPID") or 0),
            exit_code=int(shown.get("ExecMainCode") or 0),
            exit_status=int(shown.get("ExecMainStatus") or 0),
            since=_moment(shown["StateChangeTimestamp"]),
            restart=shown.get("Restart", ""),
            restart_sec=seconds(shown.get("RestartUSec", "")),
            start_limit_interval=seconds(shown["StartLimitIntervalUSec"]),
            start_limit_burst=int(shown["StartLimitBurst"]),
            fragment=shown["FragmentPath"],
            drop_ins=tuple(shown["DropInPaths"].split()),
            needs_reload=shown["NeedDaemonReload"] == "yes",
        )
    if changed is not None:  # systemd said it of all
        for name, unit in units.items():
            own = any(path == unit.fragment or f"/{name}.d/" in path for path in changed)
            units[name] = msgspec.structs.replace(unit, needs_reload=own)
    return units


def _moment(text: str) -> float | None:
    return float(text.removeprefix("@")) if text.startswith("@") else None


def seconds(text: str) -> float | None:
    """A span of time as systemd prints it, such as `1min 30s`; None for what is none (`infinity`, nothing)."""
    if text == "0":
        return 0.0
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
            image=_short(item["ImageID"]),
            state=item["State"],
            ports={port: tuple(sorted(addresses)) for port, addresses in ports.items()},
            exit_status=end["ExitCode"] if end else None,
            out_of_memory=bool(end and end["OOMKilled"]),
            finished=end["FinishedAt"] if end else "",
        )
    return found


def _short(image_id: str) -> str:
    return image_id.removeprefix("sha256:")[:16]


def _images(text: str) -> dict[str, Image]:
    """containerd's store lists an image once for each tag."""
    found: dict[str, Image] = {}
    for item in json.loads(text):
        before = found.get(_short(item["Id"]), Image())
        digests = (it.partition("@sha256:")[2] for it in item["RepoDigests"] or ())
        found[_short(item["Id"])] = Image(
            tags=tuple(sorted({*before.tags, *(item["RepoTags"] or ())})),
            digests=tuple(sorted({*before.digests, *digests})),
        )
    return found


def _apps(text: str) -> dict[str, int]:
    return {container: int(status) for container, status in map(str.split, _lines(text))}


def _ambassadors(text: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    servers: dict[str, str] = {}
    for line in _lines(text):
        if line.endswith("-dynamic-amb") and line.startswith("# "):
            servers = {}
            found[line.removeprefix("# ").removesuffix("-dynamic-amb")] = servers
            continue
        columns = line.split()
        if len(columns) <= PORT or columns[0] == "#":
            continue
        if not int(columns[ADMINISTRATION]) & MAINTENANCE:
            servers[f"{columns[ADDRESS]}:{columns[PORT]}"] = "UP" if columns[OPERATION] == "2" else "DOWN"
    return found


def _routes(text: str) -> dict[str, str]:
    return dict(line.split() for line in text.splitlines() if line.strip())


def _metrics(text: str) -> dict[str, int]:
    """Name -> value; those of several peers are added up."""
    found: dict[str, int] = {}
    for line in filter(None, text.splitlines()):
        name, _, value = line.rpartition(" ")
        name = name.partition("{")[0]
        found[name] = found.get(name, 0) + int(float(value))
    return found


def _with_metrics(etcd: EtcdHere | None, metrics: Mapping[str, int]) -> EtcdHere | None:
    if etcd is None or not metrics:
        return etcd
    changes = metrics.get("etcd_server_leader_changes_seen_total")
    failures = metrics.get("etcd_network_peer_sent_failures_total", 0)
    return msgspec.structs.replace(etcd, leader_changes=changes, peer_failures=failures)


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
    return tuple(sorted(item["id"] for item in items(text, "machines")))


def items(text: str, collection: str) -> list[dict[str, Any]]:
    """Those of all pages of a collection of fleet's API, a page a line. Raises ValueError, KeyError, TypeError."""
    pages = [json.loads(line) for line in text.splitlines() if line]
    if not pages:
        raise ValueError("no page")
    return [item for page in pages for item in page.get(collection) or ()]


def _reached(text: str) -> dict[str, float]:
    return {address: float(share) for address, share in (line.split(" ") for line in _lines(text))}


def _listening(text: str) -> tuple[tuple[str, str], ...]:
    rows = (line.partition(" ") for line in _lines(text))
    return tuple((address, program) for address, _, program in rows)


def _sshd(text: str) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in _lines(text))


def _operator(text: str) -> dict[str, str]:
    return {name: said.strip() for name, _, said in (line.partition(" ") for line in _lines(text))}


def _rooms(text: str) -> dict[str, Room]:
    rooms = {}
    memory = {}
    for name, *figures in map(str.split, _lines(text)):
        if name == "load":
            rooms["load"] = Room(size=int(1000 * float(figures[0])), free=int(figures[1]))
        elif name.endswith(":"):
            memory[name] = int(float(figures[0]))
        else:
            rooms[name] = Room(size=int(figures[0]), free=int(figures[1]))
    return rooms | {"memory": Room(size=memory["MemTotal:"], free=memory["MemAvailable:"])}


def _journal(text: str) -> tuple[Line, ...]:
    found: list[Line] = []
    for line in _lines(text):
        time, _, said = line.partition(" ")
        if time:
            found.append(Line(time=float(time), text=said))
        elif found:  # a message of several lines: journalctl indents all but the first
            found[-1] = Line(time=found[-1].time, text=f"{found[-1].text}\n{said.strip()}")
    return tuple(found)


def _contents(text: str) -> dict[str, Release]:
    found = {}
    for line in _lines(text):
        site, _, release = line.partition(" ")
        version, files, stamp, digest = release.rsplit(" ", 3)  # a version.txt that is empty, or not there, is none
        found[site] = Release(version=version, files=int(files), stamp=stamp, digest=digest)
    return found
