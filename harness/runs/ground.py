"""The ground: what must stand before the runbook's third step: a network, a discovery service, an image registry, a
name server."""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import random
import secrets
import shutil
import socket
import struct
from pathlib import Path

import requests

from harness import files
from harness.drivers.terraform import Terraform, declared
from harness.errors import CommandFailed, EnvironmentFailed, HarnessError, Misconfigured, PlatformWrong
from harness.runs.workplace import HANDED_OVER, Workplace
from harness.seams.wait import NotYet, Waiter
from harness.setup.toolchain import Toolchain

# Clusters live in /24 networks of this block, which neither Docker's own pools nor home routers use by default.
SUBNETS = ipaddress.IPv4Network("10.208.0.0/12")
# Where a VPN leads all of that block away: what nothing but measurements of networks uses (RFC 2544)
LAST_RESORT = ipaddress.IPv4Network("198.18.0.0/15")
# The kernel's routes of every table; /proc/net/route has those of the main one only
TABLES = Path("/proc/net/fib_trie")
GROUND_LIMIT = 30.0
DNS = 53
# What a ground need not make where the environment names it
GIVEN = ("discovery_service", "image_registry", "name_server")
# How often another run may take the subnet between our look and the engine's
SUBNETS_TRIED = 5


def make_ground(workplace: Workplace, toolchain: Toolchain) -> None:
    """Makes the ground where the target has a module for it (infra/ground/TARGET), else takes what is given.

    Tells the target of its registry, image and name server, and the operator's shell of its discovery service. Raises
    EnvironmentFailed when the ground cannot be made or does not answer, Misconfigured when it is not given.
    """
    has_module = (workplace.run.root / "infra/ground" / workplace.target).is_dir()
    discovery, given = _made(workplace, toolchain) if has_module else _given()
    workplace.run.redact.add("key of the name server", given["name_key"])
    workplace.hand_over(given)
    workplace.shell.export(DISCOVERY_SERVICE=discovery)


def _given() -> tuple[str, dict[str, str]]:
    """The discovery service, and what the target is told, from the environment."""
    discovery = _required("DISCOVERY_SERVICE")
    given = {name.lower(): _required(name) for name in ("IMAGE_REGISTRY", "MACHINE_IMAGE")}
    # without one the entry point's address is fixed
    return discovery, given | {name.lower(): os.environ.get(name, "") for name in ("NAME_SERVER", "NAME_KEY")}


def _made(workplace: Workplace, toolchain: Toolchain) -> tuple[str, dict[str, str]]:
    """The same, of a ground that is made here."""
    run, module = workplace.run, workplace.run.root / "infra/ground" / workplace.target
    shutil.copytree(module, workplace.ground_folder, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
    workplace.ground_folder.chmod(0o700)  # Terraform's state holds what its variables hold
    for file in workplace.target_folder.glob("*.auto.tfvars"):  # what the target's operator says of it
        shutil.copy2(file, workplace.ground_folder)
    ground = workplace.ground()
    variables = _variables(workplace, toolchain, declared(ground.folder))
    run.redact.add("key of the name server", variables["name_key"])
    try:
        ground.init()
        _apply(ground, {name: value for name, value in variables.items() if name in declared(ground.folder)})
        outputs = ground.raw_outputs()
    except PlatformWrong as failed:
        reason = failed.reason if isinstance(failed, CommandFailed) else ""
        raise EnvironmentFailed(f"the ground could not be made: {reason or failed}") from failed
    discovery, registry, names = (outputs[name] for name in ("discovery-service", "image-registry", "name-server"))
    # what was given need not be reachable from here
    urls = [] if variables.get("discovery_service") else [discovery.partition("/v2/keys")[0] + "/health"]
    urls += [] if variables.get("image_registry") else [f"http://{registry}/v2/"]
    _until_ground_answers(run.waiter, "" if variables.get("name_server") else names, *urls)
    return discovery, {
        "image_registry": registry,
        "machine_image": variables["machine_image"],
        "name_server": names,
        "name_key": variables["name_key"],
    }


def _variables(workplace: Workplace, toolchain: Toolchain, wanted: set[str]) -> dict[str, str]:
    """All that a ground may be told. One that could do without making a service is told those that are given."""
    given = {name: os.environ.get(name.upper(), "") for name in GIVEN if name in wanted}
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    return given | {
        "run_id": workplace.run_id,
        "machine_image": toolchain.boots_from,
        "registry_storage": str(toolchain.registry_storage),
        "archive": str(toolchain.services_archive),
        "target_folder": str(workplace.target_folder),
        "name_key": os.environ.get("NAME_KEY", "") if given.get("name_server") else key,
    }


def _apply(ground: Terraform, variables: dict[str, str]) -> None:
    """On a subnet that is free, where it is for the ground to have one."""
    for attempt in range(1, SUBNETS_TRIED + 1):
        if "subnet" in declared(ground.folder):
            variables["subnet"] = str(free_subnet(Path("/proc/net/route").read_text(), random.Random()))
        files.put(ground.folder / HANDED_OVER, json.dumps(variables), mode=0o600)  # the name server's key is in it
        try:
            ground.apply()
            return
        except CommandFailed as failed:
            if "overlaps" not in failed.stderr or attempt == SUBNETS_TRIED:
                raise


def _until_ground_answers(waiter: Waiter, name_server: str, *urls: str) -> None:
    with requests.Session() as session:
        session.trust_env = False

        def probe() -> list[int]:
            try:
                if name_server:
                    socket.create_connection((name_server, DNS), timeout=2).close()
                return [_status(session, url) for url in urls]
            except (requests.RequestException, OSError) as refused:
                raise NotYet(type(refused).__name__) from refused

        try:
            waiter.until(
                "discovery service, image registry and name server answer",
                probe,
                lambda statuses: set(statuses) <= {200},
                within=GROUND_LIMIT,
            )
        except HarnessError as failed:
            raise EnvironmentFailed(
                f"the ground does not answer ({failed}): can containers' addresses be reached from this machine?"
            ) from failed


def _status(session: requests.Session, url: str) -> int:
    # without the body: one that drips would have no end
    with session.get(url, timeout=2, stream=True) as answer:
        return answer.status_code


def free_subnet(routes: str, choice: random.Random) -> ipaddress.IPv4Network:
    """A random /24 of SUBNETS that no route of this machine overlaps, of /proc/net/route or of any other table; of
    LAST_RESORT where there is none."""
    taken = _of_every_table(TABLES.read_text() if TABLES.exists() else "")
    for line in routes.splitlines()[1:]:
        _, destination, _, _, _, _, _, mask, *_ = line.split()
        # both are hexadecimal, in the machine's byte order
        address, netmask = (socket.inet_ntoa(struct.pack("=L", int(word, 16))) for word in (destination, mask))
        taken.append(ipaddress.IPv4Network(f"{address}/{netmask}", strict=False))
    taken = [net for net in taken if net.prefixlen]
    for block in (SUBNETS, LAST_RESORT):
        candidates = [net for net in block.subnets(new_prefix=24) if not any(net.overlaps(other) for other in taken)]
        if candidates:
            return choice.choice(candidates)
    raise EnvironmentFailed(
        f"no /24 network of {SUBNETS} is free on this machine, nor of {LAST_RESORT} (see: ip route show table all)"
    )


def _of_every_table(tries: str) -> list[ipaddress.IPv4Network]:
    """Below each address (`|-- 10.0.0.0`) stand the lengths of its routes' masks (`/8 universe UNICAST`)."""
    found, address = [], ""
    for line in tries.splitlines():
        first, *rest = line.split()
        if first == "|--":
            address = rest[0]
        elif first.startswith("/"):
            found.append(ipaddress.IPv4Network(f"{address}{first}", strict=False))
    return found


def _required(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise Misconfigured(
            f"{name} is not set: this target has no ground of its own (infra/ground), so it must be given"
        )
    return value
