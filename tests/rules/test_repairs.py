"""What mends a finding: each rule has it for each of its cases, and it changes nothing but the subject."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.rules.finding import RULES, Finding, Subject
from harness.rules.judging import judge
from harness.rules.repairs import README, REPAIRS, is_line, repair
from harness.snapshot.data import Release
from tests.rules.cases import CASES, ID, ONE, UNIT, Changes, look
from tests.transcripts.snapshots import REMOVED, changed, green, later, silent

TEXT = (Path(__file__).parents[2] / "README.md").read_text()
WORDS = " ".join(TEXT.split())
# found where nobody could look
WITHOUT_A_LOOK = {"engine-answers", "cluster-is-made"}
TABLE = [(rule, *it) for rule, cases in CASES.items() for it in cases if it[1]]
NAMES = [f"{rule}-{number}" for number, (rule, *_) in enumerate(TABLE)]
# What only looks, on a machine that is not the subject's
LOOKS = ("fleetctl cat", "sudo tar -C /home/core -c")
# Words that the README leaves to the line that is printed
OWN = ("sudo sed", "sudo find", "sudo tee", "sudo tar", "sudo systemctl link", "rsync")
MORE_THAN_ONE = re.compile(r"fleetctl (stop|destroy|unload)|rm -r|systemctl (restart|stop) fleet")


def found_by(rule: str, changes: Changes) -> list[Finding]:
    broken = look(changes)
    return [it for it in judge([green(), later(broken, 1), later(broken, 20)]).findings if it.rule == rule]


def mends(rule: str, changes: Changes, subject: str) -> str:
    (found,) = (it.repair for it in found_by(rule, changes) if str(it.subject) == subject)
    return found


def test_each_rule_has_a_repair_and_no_other_name() -> None:
    without = sorted({*RULES, *WITHOUT_A_LOOK} - set(REPAIRS))

    assert not without, f"add to harness/rules/repairs.py what mends {', '.join(without)}"
    assert set(REPAIRS) - set(RULES) == WITHOUT_A_LOOK
    assert all(is_section(repair(rule, Subject("this machine"))) for rule in WITHOUT_A_LOOK)


def is_section(told: str) -> bool:
    """Whether a repair names a numbered item that this project's README has."""
    named = re.fullmatch(rf"{README}([A-Z][a-z]+(?: [a-z]+)?) (\d+): .+", told)
    if named is None:
        return False
    section = TEXT.partition(f"\n## {named[1]}\n")[2].partition("\n## ")[0]
    return re.search(rf"^{named[2]}\. ", section, re.MULTILINE) is not None


def commands(line: str) -> list[tuple[str, str]]:
    """The simple commands of a line: on which machine ("" where the operator is), and the command."""
    found: list[tuple[str, str]] = []
    for part in re.split(r" \| (?=ssh |sudo )", line):
        words = shlex.split(part)
        where, text = (words[3], " ".join(words[4:])) if words[:3] == ["ssh", "-F", "ssh_config"] else ("", part)
        found += [(where, command) for command in text.split(" && ")]
    return found


def verb(command: str) -> str:
    """`sudo systemctl restart` of `sudo systemctl restart etcd`: what the README is to have."""
    words = [word for word in command.split() if "=" not in word and not word.startswith("--")]
    length = 1 + (words[0] == "sudo") + (words[words[0] == "sudo"] in ("systemctl", "fleetctl", "etcdctl"))
    return " ".join(words[:length])


@pytest.mark.parametrize(("rule", "changes", "subjects"), TABLE, ids=NAMES)
def test_what_is_found_can_be_mended(rule: str, changes: Changes, subjects: tuple[str, ...]) -> None:
    now = look(changes)
    for finding in found_by(rule, changes):
        if not is_line(finding.repair):
            assert is_section(finding.repair), f"{finding}: {finding.repair!r} is no section of the README"
            continue
        assert not MORE_THAN_ONE.search(finding.repair), finding.repair
        for machine, command in commands(finding.repair):
            assert machine in {"", *now.answering}, finding.repair
            if machine and finding.subject.machine and not command.startswith(LOOKS):
                assert machine == finding.subject.machine, f"{finding}: {finding.repair} changes {machine}"
            assert verb(command).startswith(OWN) or verb(command) in WORDS, f"the README does not have {command!r}"
            units = re.findall(r"[\w@-]+\.service", command)
            assert set(units) <= {*now.intended.units, finding.subject.name}, finding.repair


DEAD = {f"{UNIT}.active": "inactive", f"{UNIT}.sub": "dead"}
BLOG_2 = "unit blog.service on coreos-2"
ETCD = f"{ONE}.units.etcd.service"


@pytest.mark.parametrize(
    ("rule", "changes", "subject", "line"),
    [
        ("unit-runs", DEAD, BLOG_2, "ssh -F ssh_config coreos-2 'sudo systemctl start blog.service'"),
        (
            "unit-runs",
            {f"{UNIT}.active": "failed", f"{UNIT}.sub": "failed"},
            BLOG_2,
            "ssh -F ssh_config coreos-2 'sudo systemctl restart blog.service'",
        ),
        (
            "unit-runs",
            {f"{UNIT}.active": "activating", f"{UNIT}.sub": "auto-restart"},
            BLOG_2,
            "README, Troubleshooting 11: its last words say why",
        ),
        (
            "unit-runs",
            {**DEAD, f"{UNIT}.load": "masked"},
            BLOG_2,
            "ssh -F ssh_config coreos-2 'sudo systemctl unmask blog.service && sudo systemctl start blog.service'",
        ),
        (
            "unit-runs",
            {**DEAD, f"{UNIT}.drop_ins": ("/etc/systemd/system/blog.service.d/a b.conf",)},
            BLOG_2,
            "ssh -F ssh_config coreos-2 'sudo rm '\"'\"'/etc/systemd/system/blog.service.d/a b.conf'\"'\"' && "
            "sudo systemctl daemon-reload && sudo systemctl start blog.service'",
        ),
        (
            "unit-runs",
            {**DEAD, f"{UNIT}.load": "not-found", f"{UNIT}.text": ""},
            BLOG_2,
            "fleetctl cat blog.service | "
            "ssh -F ssh_config coreos-2 'sudo tee /run/fleet/units/blog.service >/dev/null && "
            "sudo systemctl link --runtime /run/fleet/units/blog.service && sudo systemctl daemon-reload && "
            "sudo systemctl start blog.service'",
        ),
        ("unit-runs", lambda now: silent(now, "coreos-2"), BLOG_2, "README, Troubleshooting 3: "),
        (
            "unit-restarts-for-ever",
            {f"{UNIT}.restart_sec": 0.0, f"{UNIT}.needs_reload": True},
            BLOG_2,
            "ssh -F ssh_config coreos-2 'sudo systemctl daemon-reload'",
        ),
        # its data is damaged; then two others have it still, one, and none
        (
            "system-unit-runs",
            {f"{ETCD}.active": "failed", f"{ONE}.etcd": None},
            "etcd on coreos-1",
            "ssh -F ssh_config coreos-1 'sudo etcd-anew'",
        ),
        (
            "system-unit-runs",
            {f"{ETCD}.active": "failed", **{f"machines.{name}.etcd": None for name in ID}},
            "etcd on coreos-1",
            "README, Recovery 9: one member has the data still",
        ),
        (
            "system-unit-runs",
            {f"machines.{name}.units.etcd.service.active": "failed" for name in ID}
            | {f"machines.{name}.etcd": None for name in ID},
            "etcd on coreos-1",
            "README, Recovery 10: no member has the data",
        ),
        (
            "system-unit-runs",
            {f"{ETCD}.active": "activating", f"{ETCD}.restarts": 2, f"{ONE}.etcd": None},
            "etcd on coreos-1",
            "ssh -F ssh_config coreos-1 'sudo etcd-anew'",
        ),
        (
            "system-unit-runs",
            {f"{ETCD}.active": "activating", f"{ETCD}.sub": "start", f"{ETCD}.restarts": 0, f"{ONE}.etcd": None},
            "etcd on coreos-1",
            "README, Recovery 6: etcd needs most of its members",
        ),
        # two are stopped: one alone would wait for another
        (
            "system-unit-runs",
            {f"{ETCD}.active": "inactive", **{f"machines.{name}.etcd": None for name in ID}},
            "etcd on coreos-1",
            "ssh -F ssh_config coreos-1 'sudo systemctl start --no-block etcd'",
        ),
        (
            "system-unit-runs",
            {f"{ONE}.units.docker.service.active": "inactive", f"{ONE}.units.docker.service.load": "masked"},
            "docker on coreos-1",
            "ssh -F ssh_config coreos-1 'sudo systemctl unmask docker.socket docker && "
            "sudo systemctl start docker.socket docker'",
        ),
        (
            "unit-is-held",
            {"fleet.units.entry.service": REMOVED, "intended.started": False},
            "unit entry.service",
            "fleetctl load units/entry.service",
        ),
        (
            "unit-runs-nowhere-else",
            {"fleet.units.blog.service": REMOVED},
            BLOG_2,
            "fleetctl start --no-block units/app/blog.service",
        ),
        # of fleet's making, and of somebody else's
        (
            "unit-runs-nowhere-else",
            {f"{ONE}.units.blog.service": green().machines["coreos-2"].units["blog.service"]},
            "unit blog.service on coreos-1",
            "ssh -F ssh_config coreos-1 'sudo systemctl stop blog.service'",
        ),
        (
            "unit-runs-nowhere-else",
            {
                f"{ONE}.units.blog.service": green().machines["coreos-2"].units["blog.service"],
                f"{ONE}.units.blog.service.text": "",
            },
            "unit blog.service on coreos-1",
            "ssh -F ssh_config coreos-1 'sudo systemctl stop blog.service && "
            "sudo rm /run/systemd/system/blog.service && sudo systemctl daemon-reload'",
        ),
        (
            "contents-are-held",
            {f"{ONE}.contents.blog.version": "0123", "machines.coreos-0.contents.blog": REMOVED},
            "contents of blog on coreos-1",
            "ssh -F ssh_config coreos-1 '/usr/local/sbin/fetch-contents --now blog'",
        ),
        (
            "deployment-is-remembered",
            {"deployed.blog": REMOVED, **{f"machines.{name}.contents.blog": Release("v1", "d1") for name in ID}},
            "contents of blog",
            "ssh -F ssh_config coreos-0 'ETCDCTL_API=2 etcdctl set /platform/deployed/blog \"v1 d1\"'",
        ),
        (
            "deployment-is-remembered",
            {"deployed.blog": REMOVED, f"{ONE}.contents.blog.digest": "other"},
            "contents of blog",
            "./bin/deploy-blog blog sites/blog",
        ),
        (
            "site-answers",
            lambda now: changed(now, {f"outside.sites.blog.{name}.status": 503 for name in ID}),
            "site blog through coreos-1",
            "ssh -F ssh_config coreos-2 'sudo systemctl restart blog.service'",
        ),
        (
            "no-system-unit-failed",
            {
                f"{ONE}.failed": ("x.service",),
                f"{ONE}.units.x.service": green().machines["coreos-1"].units["etcd.service"],
                f"{ONE}.units.x.service.fragment": "/run/systemd/transient/x.service",
            },
            "system unit x.service on coreos-1",
            "ssh -F ssh_config coreos-1 'sudo systemctl reset-failed x.service'",
        ),
    ],
)
def test_repair_is_for_what_was_seen(rule: str, changes: Any, subject: str, line: str) -> None:
    told = mends(rule, changes, subject)

    assert told == line or (line.endswith(": ") and told.startswith(line))


def test_second_instance_that_is_not_registered_has_a_sidekick_of_its_own() -> None:
    blog = green().machines["coreos-2"].containers
    assert blog is not None
    changes = {"machines.coreos-2.containers": {"blog-2": blog["blog"]}, "services.blog": {}}

    told = mends("instance-is-registered", changes, "registration blog on coreos-2")
    assert told == "ssh -F ssh_config coreos-2 'sudo systemctl restart blog-docker-reg@2.service'"


@pytest.mark.parametrize("told", ["", "README, Recovery 99: x", "README, Nowhere 1: x", "README, Recovery 2"])
def test_what_the_readme_does_not_have_is_no_section(told: str) -> None:
    assert not is_section(told)


@pytest.mark.parametrize(
    ("refused", "section"), [("", "3"), ("key", "1"), ("too many keys", "1"), ("host key", "2"), ("sudo", "8")]
)
def test_a_machine_that_refuses_the_operator_is_not_to_be_switched_on(refused: str, section: str) -> None:
    now = silent(green(), "coreos-1", refused=refused)

    for rule in ("machine-answers", "operator-is-served"):
        told = repair(rule, Subject("machine", "", "coreos-1"), now)
        assert told.startswith(f"{README}Troubleshooting {section}: ") and is_section(told)


CHAIN = """table ip raw {
	chain PREROUTING {
		ip daddr 172.17.0.2 iifname != "docker0" tcp dport 80 counter packets 0 bytes 0 drop # handle 4
		tcp dport 8080 counter packets 0 bytes 0 drop # handle 5
		tcp dport 80 accept # handle 6
		tcp dport 80 counter packets 7 bytes 9 drop comment "drill" # handle 7
	}
}
"""


def test_a_rule_that_is_taken_out_is_that_rule_and_no_other(tmp_path: Path) -> None:
    now = changed(green(), {f"{ONE}.foreign_rules": ("ip raw PREROUTING: tcp dport 80 drop",)})
    line = repair("filter-is-declared", Subject("filter", "", "coreos-1"), now)
    (tmp_path / "chain").write_text(CHAIN)
    sudo = tmp_path / "sudo"
    sudo.write_text(
        f'#!/bin/sh\ncase "$*" in *list*) cat {tmp_path}/chain ;; *) echo "$*" >> {tmp_path}/calls ;; esac\n'
    )
    sudo.chmod(0o755)

    subprocess.run(["sh", "-c", shlex.split(line)[-1]], env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, check=True)

    assert (tmp_path / "calls").read_text() == "nft delete rule ip raw PREROUTING handle 7\n"
