"""Target hosts as Terraform plans it: which hosts it takes and refuses, before it asks one; and what `look` says of a
host, with an ssh that is acted. What happens on the hosts is tried by trying it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.drivers.terraform import Plan, declared, target_data
from tests.places import program

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "infra/hosts"
ADDRESSES = [f"10.0.0.{11 + index}" for index in range(4)]
KEYS = ["ssh-rsa AAAAr", "ecdsa-sha2-nistp256 AAAAe", "ssh-ed25519 AAAAd"]
KNOWN = "".join(f"{address} {key}{index}\n" for index, address in enumerate(ADDRESSES) for key in KEYS)


class Place:
    """The operator's copy of the target, and the variables that are set there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "infra/hosts"
        bundle = folder / "bundle"
        bundle.mkdir()
        (bundle / "prepare").touch()
        (self.folder / "known_hosts").write_text(KNOWN)
        self.variables: dict[str, Any] = {
            "run_id": "20260801-120000-ab12", "machines": 3, "hosts": ADDRESSES, "user": "debian",
            "discovery_url": "http://10.0.0.11:4379/v2/keys/discovery/token", "image_registry": "10.0.0.11:5000",
            "machine_image": str(bundle), "ssh_public_key": "ssh-ed25519 AAAA operator",
        }  # fmt: skip

    def terraform(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "TF_CLI_CONFIG_FILE": os.devnull, "TF_IN_AUTOMATION": "1"}
        return subprocess.run(
            ["terraform", *arguments, "-no-color"], cwd=self.folder, env=environment, capture_output=True, text=True
        )

    def plan(self, **variables: Any) -> dict[str, Any]:
        """The planned document."""
        refusal = self.refusal(**variables)
        assert not refusal, refusal
        return dict(json.loads(self.terraform("show", "-json", "it.plan").stdout))

    def refusal(self, **variables: Any) -> str:
        """What Terraform says, on one line; "" where it plans."""
        (self.folder / "run.auto.tfvars.json").write_text(json.dumps(self.variables | variables))
        done = self.terraform("plan", "-input=false", "-out=it.plan")
        return "" if done.returncode == 0 else " ".join(done.stderr.replace("│", " ").split())


@pytest.fixture(scope="module")
def initialized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("operator")
    ignore = shutil.ignore_patterns("*.auto.tfvars*", "known_hosts", "*.key", ".terraform*", "*.tfstate*")
    shutil.copytree(TARGET, folder / "infra/hosts", ignore=ignore)
    shutil.copy(ROOT / "infra/first-boot", folder / "infra")
    shutil.copytree(ROOT / "container", folder / "container")
    init = ["terraform", "init", "-input=false"]
    subprocess.run(
        init, cwd=folder / "infra/hosts", env={**os.environ, "TF_CLI_CONFIG_FILE": os.devnull}, check=True,
        capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture
def place(initialized: Path, tmp_path: Path) -> Place:
    shutil.copytree(initialized, tmp_path / "operator", symlinks=True)
    return Place(tmp_path / "operator")


# -- what is planned -------------------------------------------------------------------------------------------------


def test_the_first_hosts_become_the_machines(place: Place) -> None:
    document = place.plan()
    plan = Plan.read(document, target_data(TARGET))
    outputs = {name: it.get("value") for name, it in document["planned_values"]["outputs"].items()}

    assert (plan.made, plan.destroyed, plan.openings) == (["coreos-0", "coreos-1", "coreos-2"], [], [])
    assert outputs["machines"] == dict(zip(plan.made, ADDRESSES, strict=False))
    assert (outputs["entrypoint-ip"], outputs["name-server"]) == (ADDRESSES[0], "")
    assert outputs["known-hosts"].splitlines() == KNOWN.splitlines()[:9]


def test_all_keys_of_a_host_are_pinned_as_lines_of_a_known_hosts_file(place: Place) -> None:
    changes = place.plan()["resource_changes"]
    (back,) = (it for it in changes if it["address"] == 'terraform_data.given_back["coreos-1"]')
    host_key = back["change"]["after"]["input"]["host_key"]

    # Terraform writes `@cert-authority ADDRESS HOST_KEY`
    assert f"{ADDRESSES[1]} {host_key}".splitlines() == KNOWN.splitlines()[3:6]


def test_a_fixed_entry_point_shows_the_key_of_any_entry_point(place: Place) -> None:
    outputs = place.plan(entrypoint_ip="192.168.7.7")["planned_values"]["outputs"]

    assert outputs["entrypoint-ip"]["value"] == "192.168.7.7"
    assert outputs["known-hosts"]["value"].splitlines()[9:] == [
        line.replace(address, "192.168.7.7") for address in ADDRESSES[:3] for line in KNOWN.splitlines()
        if line.startswith(f"{address} ")
    ]  # fmt: skip


def test_lines_for_several_names_and_remarks_are_read(place: Place) -> None:
    line = f"# of one\n\nhost-1,{ADDRESSES[0]}\t{KEYS[2]} remark\n"
    (place.folder / "known_hosts").write_text(line)

    assert place.plan(machines=1)["planned_values"]["outputs"]["known-hosts"]["value"] == f"{ADDRESSES[0]} {KEYS[2]}\n"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"machines": 5}, "machines = 5, and there are 4 hosts"),
        ({"hosts": [ADDRESSES[0], ADDRESSES[0]], "machines": 1}, "hosts names an address twice"),
        ({"hosts": ["host.example"], "machines": 1}, "hosts must be IPv4 addresses"),
        ({"hosts": ["8.8.8.8"], "machines": 1}, "8.8.8.8 is a public address"),
        ({"hosts": ["172.32.0.1"], "machines": 1}, "172.32.0.1 is a public address"),
        ({"hosts": ["10.9.9.9"], "machines": 1}, "has no key of 10.9.9.9 (hashed lines do not count)"),
        ({"known_hosts": "nowhere"}, "There is no file ./nowhere: write it by `ssh-keyscan 10.0.0.11 10.0.0.12"),
        ({"user": "core"}, "not core: that one comes with the platform"),
        ({"user": "a; reboot"}, "user must be the name of a user"),
        ({"machine_image": "/nowhere"}, "machine_image = /nowhere is no folder"),
        ({"discovery_url": ""}, "run ./bin/use-new-discovery-url first"),
    ],
)
def test_what_is_refused_before_a_host_is_asked(place: Place, variables: dict[str, Any], said: str) -> None:
    assert said in place.refusal(**variables)


@pytest.mark.parametrize("address", ["10.1.2.3", "172.16.0.1", "172.31.255.1", "192.168.1.1", "100.64.0.1", "8.8.8.8"])
def test_which_addresses_are_taken(place: Place, address: str) -> None:
    (place.folder / "known_hosts").write_text(f"{address} {KEYS[2]}\n")

    assert place.refusal(hosts=[address], machines=1, trusted_network=address == "8.8.8.8") == ""


def test_the_ground_declares_what_it_is_told_and_has_no_network() -> None:
    names = declared(ROOT / "infra/ground/hosts")

    assert {"archive", "target_folder", "discovery_service", "image_registry", "name_server"} <= names
    assert "subnet" not in names


# -- what is said of a host ------------------------------------------------------------------------------------------

ID = "0123456789abcdef" * 2
CHANGED = "WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!\nHost key verification failed.\n"


@pytest.fixture
def look(tmp_path: Path) -> Callable[[int, str], subprocess.CompletedProcess[str]]:
    """What `look` says where ssh ends with a status, and says something."""
    (tmp_path / "prepare").write_text("what is run there\n")

    def looked(status: int, said: str, key_file: str = "/keys/one") -> subprocess.CompletedProcess[str]:
        (tmp_path / "said").write_text(said)
        program(
            tmp_path, "ssh", f'#!/bin/sh\necho "$@" > {tmp_path}/asked\ncat > {tmp_path}/sent\n'
            f"cat {tmp_path}/said >&2\n[ {status} = 0 ] || exit {status}\necho {ID}\n",
        )  # fmt: skip
        environment = {
            "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "KNOWN_HOSTS": "/known", "KEY_FILE": key_file,
            "PREPARE": str(tmp_path / "prepare"), "IDS": str(tmp_path / "ids"), "RUN_ID": "a-run",
        }  # fmt: skip
        return subprocess.run(
            [str(TARGET / "look"), "debian", "10.0.0.11"], env=environment, capture_output=True, text=True
        )

    return looked


def test_a_host_that_can_become_a_machine_is_passed_over(look: Callable[..., Any], tmp_path: Path) -> None:
    done = look(0, "Warning: something\n")
    asked = (tmp_path / "asked").read_text()

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "sent").read_text() == "what is run there\n"
    assert (tmp_path / "ids/10.0.0.11").read_text() == f"{ID}\n"
    assert "StrictHostKeyChecking=yes" in asked and "-i /keys/one debian@10.0.0.11 sudo -n RUN_ID=a-run sh" in asked
    assert asked.index("ecdsa") < asked.index("ssh-ed25519"), "as Terraform asks for them"


def test_a_key_of_the_agent_is_taken_where_no_file_is_named(look: Callable[..., Any], tmp_path: Path) -> None:
    look(0, "", key_file="")

    assert "IdentitiesOnly" not in (tmp_path / "asked").read_text()


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (CHANGED, "10.0.0.11 shows a host key that /known does not have. If it was installed anew"),
        ("No ECDSA host key is known\nHost key verification failed.\n", "10.0.0.11 shows a host key that /known"),
        (
            "debian@10.0.0.11: Permission denied (publickey).\n",
            "10.0.0.11 does not let debian in: see user and key_file",
        ),
        ("sudo: a password is required\n", "debian has no sudo on 10.0.0.11 that asks no password"),
        ("ssh: connect to host 10.0.0.11 port 22: Connection refused\n", "10.0.0.11: ssh: connect to host"),
        ("host-0: docker listens on port 80\n", "10.0.0.11: host-0: docker listens on port 80"),
    ],
)
def test_a_host_that_is_refused_is_told_in_one_line(look: Callable[..., Any], said: str, line: str) -> None:
    done = look(1, said)

    assert done.returncode == 1
    assert done.stderr.startswith(line) and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (["a", "b", "c"], ""),
        (["a", "b", "a"], "10.0.0.13 has the machine-id of 10.0.0.11: give it its own (rm /etc/machine-id; "),
        (["a", "a", "a"], "10.0.0.12 has the machine-id of 10.0.0.11: "),
        (["a", "b"], "grep: 10.0.0.13: No such file"),
    ],
)
def test_hosts_that_are_copies_of_one_are_refused_in_one_line(tmp_path: Path, ids: list[str], said: str) -> None:
    for address, host in zip(ADDRESSES, ids, strict=False):
        (tmp_path / address).write_text(f"{host * 32}\n")
    (tmp_path / "10.0.0.99").write_text("a" * 32)  # it was a host, and is none
    done = subprocess.run(
        [str(TARGET / "look-alike"), *ADDRESSES[:3]], env={**os.environ, "IDS": str(tmp_path), "LC_ALL": "C"},
        capture_output=True, text=True,
    )  # fmt: skip

    assert (done.returncode != 0) == bool(said)
    assert done.stderr.startswith(said) and done.stderr.count("\n") == bool(said)
