"""Judging looks: what counts, and which findings are causes. Each case is what the whole cluster shows of one thing."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.rules.finding import FLEET_LAG, LAYERS, RULES, Finding, Subject
from harness.rules.judging import Cause, Judgement, causes, judge
from harness.rules.stands import Foundations
from harness.snapshot.data import Answer, FleetMachine, Registration, Release, Snapshot
from tests.rules.cases import AMBASSADOR, CASES, ID, ONE, RUNS_AT, TAGS, WEB, look
from tests.transcripts.snapshots import REMOVED, change, changed, green, later, silent, without

STOPPED = {"active": "inactive", "sub": "dead", "main_pid": 0}
SITE_DOWN = Answer(status=503, media_type="text/html")
JPBLOG = Subject("unit", "jpblog.service", "coreos-0")


def stopped(unit: str, machine: str, since: float | None = None) -> dict[str, Any]:
    """What systemd says of a unit that somebody stopped."""
    fields = STOPPED | ({"since": since} if since else {})
    return {f"machines.{machine}.units.{unit}.{field}": value for field, value in fields.items()}


def starting(unit: str, machine: str) -> dict[str, Any]:
    """What systemd says of a unit that ends at once, and that it starts again and again."""
    fields = {"active": "activating", "sub": "auto-restart", "main_pid": 0}
    return {f"machines.{machine}.units.{unit}.{field}": value for field, value in fields.items()}


def site_down(site: str) -> dict[str, Any]:
    down = {f"outside.sites.{site}.{name}": SITE_DOWN for name in ID}
    return {**down, f"outside.walks.{site}.failed": "status 503", f"outside.walks.{site}.pages": 0}


def no_servers(service: str) -> dict[str, Any]:
    return {f"machines.{name}.ambassadors.{service}": {} for name in ID}


def of(snapshot: Snapshot) -> tuple[Cause, ...]:
    """The causes when a cluster has been like this for a while."""
    looks = [later(snapshot, 1), later(snapshot, 20)]
    return causes(judge(looks).findings, looks[-1])


def shown(found: Sequence[Cause]) -> dict[str, set[str]]:
    """Cause -> its consequences."""
    return {
        f"{cause.finding.rule}: {cause.finding.subject}": {f"{it.rule}: {it.subject}" for it in cause.consequences}
        for cause in found
    }


def test_an_agent_without_a_key_is_why_nobody_answers() -> None:
    found = of(change(silent(green(), *ID, refused="key", through="coreos-0"), "outside.keys", 0))

    assert [str(cause.finding.subject) for cause in found] == ["ssh-agent"]
    assert {str(it.subject) for it in found[0].consequences} >= {f"machine {name}" for name in ID}


@pytest.mark.parametrize("refused", ["", "key", "host key"])
def test_an_entry_point_that_is_silent_is_why_those_behind_it_do_not_answer(refused: str) -> None:
    found = of(change(silent(green(), *ID, refused=refused, through="coreos-0"), "outside.keys", 1))

    assert [str(cause.finding.subject) for cause in found if cause.finding.rule != "backing-service-answers"] == [
        "machine coreos-0"
    ]


# -- what counts -----------------------------------------------------------------------------------------------------

NOT_REPORTED = {"fleet.states.blog.service": ()}


def reported(*looks: Snapshot) -> Judgement:
    return judge(looks).of(["unit-is-reported"])


def test_what_a_rule_without_lag_finds_counts_at_once() -> None:
    judged = judge([changed(green(), stopped("jpblog.service", "coreos-0"))])

    assert [finding.key for finding in judged.findings] == [("unit-runs", JPBLOG)]
    assert judged.findings[0].first_seen == green().asked


def test_what_a_rule_with_lag_finds_counts_when_looks_that_are_further_apart_agree() -> None:
    broken = changed(green(), NOT_REPORTED)

    first = reported(green(), later(broken, 1))
    assert not first.findings and len(first.unsettled) == 1
    assert not reported(green(), later(broken, 1), later(broken, 1 + FLEET_LAG - 0.1)).findings
    settled = reported(green(), later(broken, 1), later(broken, 1 + FLEET_LAG))
    assert len(settled.findings) == 1 and not settled.unsettled
    assert settled.findings[0].first_seen == green().asked + 1


def test_what_is_gone_in_between_starts_anew() -> None:
    broken = changed(green(), NOT_REPORTED)

    judged = reported(later(broken, 1), later(green(), 4), later(broken, 7), later(broken, 9))
    assert not judged.findings and judged.unsettled[0].first_seen == green().asked + 7
    assert reported(later(broken, 1), later(green(), 4), later(broken, 7), later(broken, 12)).findings


def test_what_is_gone_by_now_is_no_finding() -> None:
    assert judge([later(changed(green(), NOT_REPORTED), 1), later(green(), 9)]).all == ()


def test_another_subject_is_another_finding() -> None:
    other = changed(green(), {"fleet.states.jpblog.service": ()})

    assert not reported(later(changed(green(), NOT_REPORTED), 1), later(other, 20)).findings


def test_a_rule_that_compares_does_so_with_the_first_look() -> None:
    again = later(changed(green(), {"machines.coreos-0.units.jpblog.service.main_pid": 4711}), 5)

    assert [str(it) for it in judge([green(), later(green(), 2), again, later(again, 3)]).findings] == [
        "unit jpblog.service on coreos-0: expected one process all the while, "
        "seen started again (0 and then 0 restarts by systemd)"
    ]
    assert judge([again, later(again, 3)]).all == ()


def test_what_is_expected_is_no_finding() -> None:
    broken = changed(green(), stopped("jpblog.service", "coreos-0") | stopped("blog.service", "coreos-2"))

    judged = judge([broken], {("unit-runs", JPBLOG), ("unit-is-placed", Subject("unit", "blog.service", "coreos-2"))})
    assert [str(finding.subject) for finding in judged.all] == ["unit blog.service on coreos-2"]


def test_a_judgement_of_some_rules() -> None:
    judged = judge([changed(green(), NOT_REPORTED | stopped("jpblog.service", "coreos-0"))])

    assert {finding.rule for finding in judged.all} == {"unit-runs", "unit-is-reported"}
    assert {finding.rule for finding in judged.of({"unit-runs"}).all} == {"unit-runs"}
    assert judged.of(()).all == ()


def test_since_is_by_the_clock_of_who_looks() -> None:
    ahead = change(
        changed(green(), stopped("jpblog.service", "coreos-0", 1000.0)), "machines.coreos-0.clock_ahead", 0.5
    )

    assert [finding.since for finding in judge([ahead]).findings] == [999.5]


def test_a_finding_can_be_pasted() -> None:
    (finding,) = judge([changed(green(), {"machines.coreos-1.units.etcd.service.active": "failed"})]).findings

    assert finding.paste.startswith("ssh -F ssh_config coreos-1 'systemctl status etcd.service; ")


# -- causes ----------------------------------------------------------------------------------------------------------

# docker stop takes its time: systemd stops the sidekick first, and it is dead before the unit that it is part of
JPBLOG_STOPPED = (
    stopped("jpblog.service", "coreos-0", 1795665900.0)
    | stopped("jpblog-docker-reg.service", "coreos-0", 1795665890.0)
    | {"machines.coreos-0.containers.jpblog": REMOVED, "machines.coreos-0.containers.jpblog-docker-reg": REMOVED}
    | site_down("jpblog")
)
# the same of one that cannot start
JPBLOG_TRIED = JPBLOG_STOPPED | {
    key: value
    for unit in ("jpblog.service", "jpblog-docker-reg.service")
    for key, value in starting(unit, "coreos-0").items()
}
WALKED = ("site-is-whole", "site-is-as-deployed", "sites-are-apart")
SITES_OF_JPBLOG = {f"site-answers: site jpblog through {name}" for name in ID} | {
    f"{rule}: site jpblog" for rule in WALKED
}


# units that are on every machine
GLOBAL = ("blog-dynamic-amb", "jpblog-dynamic-amb", "etcd-amb", "entry")


def test_jpblog_stopped_when_all_have_noticed() -> None:
    assert shown(of(changed(green(), JPBLOG_STOPPED | {"services.jpblog": {}} | no_servers("jpblog")))) == {
        "unit-runs: unit jpblog.service on coreos-0": {
            "unit-runs: unit jpblog-docker-reg.service on coreos-0",
            "instance-is-registered: registration jpblog",
            *SITES_OF_JPBLOG,
        }
    }


def test_jpblog_stopped_while_it_is_still_registered() -> None:
    assert shown(of(changed(green(), JPBLOG_STOPPED))) == {
        "unit-runs: unit jpblog.service on coreos-0": {
            "unit-runs: unit jpblog-docker-reg.service on coreos-0",
            "instance-is-registered: registration jpblog",
            "registration-is-right: registration jpblog/coreos-0:jpblog",
            *(f"ambassador-reaches: ambassador of jpblog on {name}" for name in ID),
            *SITES_OF_JPBLOG,
        }
    }


def test_jpblog_stopped_while_ambassadors_have_not_noticed() -> None:
    assert shown(of(changed(green(), JPBLOG_STOPPED | {"services.jpblog": {}}))) == {
        "unit-runs: unit jpblog.service on coreos-0": {
            "unit-runs: unit jpblog-docker-reg.service on coreos-0",
            "instance-is-registered: registration jpblog",
            *(f"ambassador-follows: ambassador of jpblog on {name}" for name in ID),
            *(f"ambassador-reaches: ambassador of jpblog on {name}" for name in ID),
            *SITES_OF_JPBLOG,
        }
    }


@pytest.mark.parametrize("blog", [REMOVED, lambda it: replace(it, state="paused")], ids=["is-gone", "is-paused"])
def test_container_that_is_gone_or_paused_and_is_registered_by_nobody_any_more(blog: Any) -> None:
    broken = changed(green(), {"machines.coreos-2.containers.blog": blog, "services.blog": {}})

    assert shown(of(broken))["container-runs: container blog on coreos-2"] >= {
        "instance-is-registered: registration blog"
    }
    assert len(of(broken)) == 1


# the app says nothing, and its ambassadors have noticed
HANGS = {f"machines.{name}.ambassadors.blog.{RUNS_AT}": "DOWN" for name in ID} | {"machines.coreos-2.apps.blog": 0}
HANGS |= site_down("blog")


def test_an_app_that_hangs_is_one_cause_and_no_ambassador_is() -> None:
    assert shown(of(changed(green(), HANGS))) == {
        "instance-answers: container blog on coreos-2": {
            *(f"ambassador-reaches: ambassador of blog on {name}" for name in ID),
            *(f"site-answers: site blog through {name}" for name in ID),
            *(f"{rule}: site blog" for rule in WALKED),
        }
    }


def test_an_app_that_is_paused_is_told_to_be_that() -> None:
    paused = HANGS | {"machines.coreos-2.containers.blog.state": "paused"}

    assert set(shown(of(changed(green(), paused)))) == {"container-runs: container blog on coreos-2"}


def test_another_instance_that_hangs_explains_its_ambassadors() -> None:
    at = "192.0.2.11:32768"
    blog = green().machines["coreos-2"].containers["blog"]  # type: ignore[index]
    another = {
        f"{ONE}.containers.blog-2": replace(blog, ports={80: (at,)}),
        f"{ONE}.apps.blog-2": 0,
        "services.blog.coreos-1:blog-2": Registration("", at, 5),
        **{f"machines.{name}.ambassadors.blog.{at}": "DOWN" for name in ID},
    }

    assert shown(of(changed(green(), another))) == {
        "instance-answers: container blog-2 on coreos-1": {
            f"ambassador-reaches: ambassador of blog on {name}" for name in ID
        }
    }


def test_etcd_stopped() -> None:
    """fleet's agent there gets no answer, and after its time to live the machine is gone for the others."""
    one = "machines.coreos-1"
    others = without(ID["coreos-1"])
    broken = changed(
        green(),
        stopped("etcd.service", "coreos-1")
        | {f"{one}.etcd": None, f"{one}.fleet": None, f"{one}.missing": ("etcd", "metrics", "fleet")}
        | {f"{one}.listening": lambda there: tuple(it for it in there if it[1] != "etcd")}
        | {f"fleet.machines.{ID['coreos-1']}": REMOVED}
        | {f"machines.{name}.fleet": others for name in ("coreos-0", "coreos-2")}
        | {f"fleet.states.{unit}": others for unit in green().intended.units},
    )
    assert shown(of(broken)) == {
        "system-unit-runs: etcd on coreos-1": {
            "etcd-is-healthy: etcd on coreos-1",
            "fleet-answers: fleet on coreos-1",
            "fleet-lists: fleet on coreos-1",
            "machine-listens: port 2379 on coreos-1",
            *(f"unit-runs-nowhere-else: unit {unit}.service on coreos-1" for unit in GLOBAL),
        }
    }


def test_a_machine_is_silent() -> None:
    """It holds the blog, and the host names lead to it: fleet still has both there, and the sites do not answer."""
    broken = changed(
        silent(green(), "coreos-2"),
        {f"fleet.machines.{ID['coreos-2']}": REMOVED, "outside.ports.coreos-2": ()}
        | {f"machines.{name}.fleet": without(ID["coreos-2"]) for name in ("coreos-0", "coreos-1")}
        | {f"machines.{name}.ambassadors.blog.192.0.2.12:32768": "DOWN" for name in ("coreos-0", "coreos-1")}
        | site_down("blog")
        | {"outside.sites.jpblog.coreos-2": Answer(failed="timed out")},
    )
    gone = ID["coreos-2"][:8]
    placed = ("blog", "blog-docker-reg", "entry-name")

    assert shown(of(broken)) == {
        "machine-answers: machine coreos-2": {
            "fleet-lists: fleet on coreos-2",
            "instance-is-registered: registration blog",
            *(f"unit-is-placed: unit {unit}.service on {gone}" for unit in placed),
            *(f"unit-runs: unit {unit}.service" for unit in placed),
            *(f"port-is-open: port {port} on coreos-2" for port in (22, 80)),
            *(f"site-answers: site blog through {name}" for name in ID),
            "site-answers: site jpblog through coreos-2",
            *(f"{rule}: site blog" for rule in WALKED),
        }
    }


def test_a_machine_is_silent_to_the_operator_only() -> None:
    assert shown(of(silent(green(), "coreos-2"))) == {
        "machine-answers: machine coreos-2": {
            "ambassador-reaches: ambassador of blog on coreos-0",
            "ambassador-reaches: ambassador of blog on coreos-1",
            "instance-is-registered: registration blog",
            *(
                f"unit-runs: unit {unit}.service on coreos-2"
                for unit in (*GLOBAL, "blog", "blog-docker-reg", "entry-name")
            ),
        }
    }


def cut_off(name: str) -> dict[str, Any]:
    """What the looks show of a machine that no other reaches, when fleet has given its units to others: it knows
    nothing of that, and has them still."""
    now = green()
    assert now.fleet is not None
    own, others = now.intended.machines[name], [other for other in ID if other != name]
    here = f"machines.{name}"
    units = [unit for unit, held in now.fleet.units.items() if held.machine_id == ID[name]]
    return (
        {f"machines.{other}.reached.{own}": 0.0 for other in others}
        | {f"{here}.reached.{now.intended.machines[other]}": 0.0 for other in others}
        | {f"{here}.etcd.healthy": False, f"{here}.etcd.leader": "", f"{here}.fleet": None}
        | {f"fleet.machines.{ID[name]}": REMOVED}
        | {f"machines.{other}.fleet": without(ID[name]) for other in others}
        | {f"fleet.states.{unit}": without(ID[name]) for unit in now.fleet.states}
        | {f"fleet.units.{unit}.machine_id": ID[others[0]] for unit in units}
        | {f"fleet.states.{unit}": (ID[others[0]],) for unit in units}
    )


@pytest.mark.parametrize("name", ID)
def test_a_split_is_one_cause(name: str) -> None:
    found = shown(of(changed(green(), cut_off(name))))

    network = f"machines-reach-each-other: network on {name}"
    assert found[network] >= {
        f"etcd-is-healthy: etcd on {name}",
        f"etcd-has-one-leader: etcd on {name}",
        f"fleet-answers: fleet on {name}",
        f"fleet-lists: fleet on {name}",
        *(f"unit-runs-nowhere-else: unit {unit}.service on {name}" for unit in GLOBAL),
    }
    # where fleet has its units now they do not run in this picture: that is another thing
    assert {cause for cause in found if cause != network and not cause.startswith("unit-")} == set()


def test_what_is_wrong_elsewhere_meanwhile_is_a_cause_of_its_own() -> None:
    found = shown(of(changed(green(), cut_off("coreos-1") | stopped("fleet.service", "coreos-0"))))

    assert "system-unit-runs: fleet on coreos-0" in found


def test_an_entry_point_without_routes() -> None:
    """Its sites are nobody's there."""
    broken = changed(
        green(),
        {"machines.coreos-1.routes": {}}
        | {f"outside.sites.{site}.coreos-1": Answer(404, "", "text/html") for site in ("blog", "jpblog")},
    )
    assert shown(of(broken)) == {
        "entry-has-routes: entry point on coreos-1": {
            "site-answers: site blog through coreos-1",
            "site-answers: site jpblog through coreos-1",
        }
    }


def moved(ago: float) -> Snapshot:
    """The blog was on coreos-2, which is silent, and began on coreos-0 so many seconds ago; it is not running yet."""
    unit = green().machines["coreos-2"].units["blog.service"]
    return changed(
        silent(green(), "coreos-2"),
        {
            "fleet.units.blog.service.machine_id": ID["coreos-0"],
            "fleet.states.blog.service": (ID["coreos-0"],),
            "machines.coreos-0.units.blog.service": unit,
        }
        | {f"machines.coreos-0.units.blog.service.{field}": value for field, value in
           {"active": "activating", "sub": "start-pre", "main_pid": 0, "since": green().asked - ago}.items()},
    )  # fmt: skip


def test_a_unit_that_comes_from_a_silent_machine_is_still_starting() -> None:
    runs = "unit-runs: unit blog.service on coreos-0"

    assert runs in shown(of(moved(ago=5)))["machine-answers: machine coreos-2"]
    assert runs in shown(of(moved(ago=500)))


def test_a_site_that_was_away_while_its_app_came_from_a_machine_without_fleet() -> None:
    """The walk met that, and by now it runs elsewhere."""
    began = {"machines.coreos-0.units.jpblog.service.since": green().asked - 5}
    away = {"outside.walks.jpblog.broken": ("entry point: /: 503",), "outside.walks.jpblog.differing": ("a.html: 503",)}
    without_fleet = stopped("fleet.service", "coreos-1") | {f"{ONE}.fleet": None}

    assert list(shown(of(changed(green(), began | away | without_fleet)))) == ["system-unit-runs: fleet on coreos-1"]
    assert len(of(changed(green(), away | without_fleet))) == 2  # it has run there for long


def test_every_machine_is_silent() -> None:
    gone = changed(silent(green(), *ID), {"fleet": None, "services": None, "deployed": None})
    gone = changed(gone, {f"outside.ports.{name}": () for name in ID} | site_down("blog") | site_down("jpblog"))

    assert set(shown(of(gone))) == {f"machine-answers: machine {name}" for name in ID}


def test_a_unit_is_stopped_by_fleet() -> None:
    broken = changed(
        green(),
        {
            "fleet.units.blog.service.desired": "loaded",
            "fleet.units.blog.service.current": "loaded",
            "services.blog": {},
        }
        | stopped("blog.service", "coreos-2")
        | stopped("blog-docker-reg.service", "coreos-2")
        | {"machines.coreos-2.containers.blog": REMOVED, "machines.coreos-2.containers.blog-docker-reg": REMOVED}
        | no_servers("blog")
        | site_down("blog"),
    )
    assert shown(of(broken)) == {
        "unit-is-wanted: unit blog.service": {
            "unit-runs: unit blog-docker-reg.service on coreos-2",
            "instance-is-registered: registration blog",
            *(f"site-answers: site blog through {name}" for name in ID),
            *(f"{rule}: site blog" for rule in WALKED),
        }
    }


def test_a_sidekick_is_stopped() -> None:
    broken = changed(
        green(),
        stopped("jpblog-docker-reg.service", "coreos-0")
        | {"machines.coreos-0.containers.jpblog-docker-reg": REMOVED, "services.jpblog": {}}
        | no_servers("jpblog")
        | site_down("jpblog"),
    )
    assert shown(of(broken)) == {
        "unit-runs: unit jpblog-docker-reg.service on coreos-0": {
            "instance-is-registered: registration jpblog on coreos-0",
            *SITES_OF_JPBLOG,
        }
    }


def test_contents_are_truncated_on_one_machine() -> None:
    """The blog runs there: that machine's files are what it serves."""
    broken = changed(
        green(),
        {
            "machines.coreos-2.contents.blog": Release("e09bf639c8fdb465", "0123", 3),
            "outside.walks.blog.broken": ("http://genkisugimoto.com/: a.png: 404",),
            "outside.walks.blog.differing": ("a.html",),
        },
    )
    assert shown(of(broken)) == {
        "contents-are-held: contents of blog on coreos-2": {
            "site-is-whole: site blog",
            "site-is-as-deployed: site blog",
        }
    }


def test_a_drop_in_sets_restart_sec_to_nothing() -> None:
    unit = "machines.coreos-2.units.blog.service"
    broken = changed(
        green(), {f"{unit}.drop_ins": ("/run/systemd/system/blog.service.d/x.conf",), f"{unit}.restart_sec": 0.0}
    )

    assert shown(of(broken)) == {
        "unit-is-not-overridden: unit blog.service on coreos-2": {
            "unit-restarts-for-ever: unit blog.service on coreos-2"
        }
    }


def test_the_name_server_is_gone() -> None:
    down = {"outside.backing.name server": "timed out"}
    nameless = {f"outside.names.{name}": "no answer: timed out" for name in green().intended.sites.values()}
    found = of(changed(green(), down | nameless))

    assert shown(found) == {
        "backing-service-answers: backing service name server": {
            "name-leads: name genkisugimoto.com",
            "name-leads: name jp.genkisugimoto.com",
        }
    }
    assert found[0].finding.layer == LAYERS[0]


SERVICE_GONE = {"outside.backing.image registry": "timed out"}


@pytest.mark.parametrize("on", [{}, {"outside.backing_on": {"image registry": "coreos-1"}}])
def test_a_machine_takes_the_backing_services_with_it_that_run_on_it(on: dict[str, Any]) -> None:
    lost = {"machines.coreos-2.silent": "timed out"}
    found = of(changed(green(), lost | SERVICE_GONE | on))

    assert len(found) == 2, "that of another machine, and that of none, do not"
    found = of(changed(green(), lost | SERVICE_GONE | {"outside.backing_on": {"image registry": "coreos-2"}}))
    assert [(cause.finding.rule, str(cause.finding.subject)) for cause in found] == [
        ("machine-answers", "machine coreos-2")
    ]
    assert ("backing-service-answers", "backing service image registry") in {
        (it.rule, str(it.subject)) for it in found[0].consequences
    }


def test_fleets_metadata_of_a_machine_are_anothers() -> None:
    broken = change(green(), f"fleet.machines.{ID['coreos-1']}.metadata.name", "coreos-0")

    assert shown(of(broken)) == {"fleet-metadata: fleet on coreos-1": set()}


def test_a_consequence_that_has_consequences() -> None:
    """A full disk explains that a unit does not run, and so all that this explains."""
    full = changed(green(), JPBLOG_TRIED | {"services.jpblog": {}, "machines.coreos-0.rooms./var/lib/docker.free": 0})

    assert set(shown(of(full))) == {"room-is-left: room /var/lib/docker on coreos-0"}


def test_helper_files_that_are_missing_explain_units_that_do_not_run_and_their_sites() -> None:
    broken = changed(green(), JPBLOG_TRIED | {"machines.coreos-0.helpers": {"web/configure.sh": ""}})

    assert set(shown(of(broken))) == {"helpers-are-there: helper files on coreos-0"}


def test_the_image_registry_explains_units_that_do_not_run() -> None:
    broken = changed(green(), JPBLOG_TRIED | {"outside.backing.image registry": "timed out"})

    assert set(shown(of(broken))) == {"backing-service-answers: backing service image registry"}


# -- nothing else is folded ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        {"machines.coreos-0.sshd.passwordauthentication": "yes"},
        {"machines.coreos-0.clock_ahead": 9.0},
        {"machines.coreos-0.failed": ("cron.service",)},
        {"machines.coreos-0.host_key": ""},
        {"machines.coreos-0.filter": "0123"},
        {"machines.coreos-0.missing": ("journal",)},
        {"machines.coreos-1.units.etcd.service.active": "failed"},
        {"machines.coreos-1.units.docker.service.active": "failed"},
        {"machines.coreos-1.rooms./run.free": 0},
        {"machines.coreos-0.contents.blog.digest": "0123"},
        {"machines.coreos-2.units.blog.service.active": "failed"},
        {"machines.coreos-0.units.jpblog.service.drop_ins": ("x.conf",)},
        {"outside.backing.name server": "timed out"},
        {"plan": ("something",)},
        {"outside.stranger.status": 200},
    ],
)
def test_what_has_nothing_to_do_with_a_stopped_unit_is_a_cause_beside_it(other: Mapping[str, Any]) -> None:
    broken = changed(green(), stopped("jpblog.service", "coreos-0") | other)
    found = shown(of(broken))

    assert len(found) == 2 and found["unit-runs: unit jpblog.service on coreos-0"] == set()


REGISTRY_AWAY = {"outside.backing.image registry": "timed out"}
BOOT_FAILED = {
    f"{ONE}.units.first-boot.service.active": "failed",
    f"{ONE}.units.first-boot.service.result": "exit-code",
}
NOT_FOUND = {"outside.sites.blog.coreos-1": Answer(404, "", "text/html")}
OLD = {"outside.sites.blog.coreos-1.version": "0123456789"}
REFUSED = {"outside.sites.blog.coreos-1": Answer(failed="connection refused")}
LINKS = {"outside.walks.blog.broken": ("http://x/: /gone: 404",)}
BYTES = {"outside.walks.blog.differing": ("index.html",)}
VARIABLES = {"plan": ('docker_container.machine["coreos-3"]: would be made',)}


@pytest.mark.parametrize(
    ("deeper", "fault", "stays"),
    [
        (REGISTRY_AWAY, stopped("jpblog.service", "coreos-0"), JPBLOG),
        (REGISTRY_AWAY, {"machines.coreos-0.units.jpblog.service.active": "failed"}, JPBLOG),
        ({"machines.coreos-0.units.docker.service.active": "inactive"}, stopped("jpblog.service", "coreos-0"), JPBLOG),
        ({"machines.coreos-0.rooms./run.free": 0}, stopped("jpblog.service", "coreos-0"), JPBLOG),
        (lambda now: silent(now, "coreos-1"), LINKS, Subject("site", "blog")),
        (lambda now: silent(now, "coreos-1"), BYTES, Subject("site", "blog")),
        (lambda now: silent(now, "coreos-0"), LINKS, Subject("site", "blog")),
        (NOT_FOUND, LINKS, Subject("site", "blog")),
        (LINKS, BYTES, Subject("site", "blog")),
        (lambda now: silent(now, "coreos-1"), VARIABLES, Subject("plan")),
        (lambda now: silent(now, "coreos-1", refused="key"), REFUSED, Subject("site", "blog", "coreos-1")),
        (lambda now: silent(now, "coreos-1", refused="key"), {"outside.ports.coreos-1": (22,)},
         Subject("port", "80", "coreos-1")),
        (stopped("etcd.service", "coreos-1"), REFUSED, Subject("site", "blog", "coreos-1")),
        ({f"{ONE}.fleet": None}, REFUSED, Subject("site", "blog", "coreos-1")),
        ({f"{ONE}.machine_id": ""}, {f"{ONE}.containers.entry": REMOVED}, Subject("container", "entry", "coreos-1")),
        (BOOT_FAILED, {f"{ONE}.contents.blog.digest": "0123"}, Subject("contents of", "blog", "coreos-1")),
        (stopped("contents.service", "coreos-1"), REFUSED, Subject("site", "blog", "coreos-1")),
        ({"services.blog.drill": Registration("x", "192.0.2.254:1", 9)}, {f"{ONE}.ambassadors.blog": {}},
         Subject("ambassador of", "blog", "coreos-1")),
        (lambda now: silent(now, "coreos-1"), {"fleet.units.blog.service": REMOVED}, Subject("unit", "blog.service")),
    ],
)  # fmt: skip
def test_what_something_deeper_cannot_lead_to_is_a_cause_beside_it(deeper: Any, fault: Any, stays: Subject) -> None:
    now = changed(deeper(green()) if callable(deeper) else changed(green(), deeper), fault)
    subjects = [cause.finding.subject for cause in of(now)]

    assert stays in subjects and len(subjects) > 1


@pytest.mark.parametrize("fault", [LINKS, BYTES, NOT_FOUND, OLD, BOOT_FAILED, {"outside.ports.coreos-1": (22,)}])
def test_machines_that_are_too_slow_are_no_excuse_for_what_is_not_late(fault: Any) -> None:
    found = of(changed(green(), SLOW | fault))

    assert [cause.finding.rule for cause in found] and "processors-suffice" not in {it.finding.rule for it in found}


def test_files_that_no_app_answered_for_follow_from_a_network_that_is_split() -> None:
    cut = cut_off("coreos-1") | {"fleet.units": green().fleet.units if green().fleet else {}}
    cut |= {f"outside.sites.blog.{name}": SITE_DOWN for name in ID} | {f"{ONE}.etcd.healthy": False}
    files = {"outside.walks.blog.differing": ("a.html: 503", "b.html: 502")}

    assert "site-is-as-deployed: site blog" not in shown(of(changed(green(), cut | files)))
    assert "site-is-as-deployed: site blog" in shown(of(changed(green(), cut | BYTES)))


def test_a_lost_machine_explains_that_a_plan_makes_it_again() -> None:
    again = 'docker_container.machine["coreos-1"]: must_run false -> true'
    found = shown(of(change(silent(green(), "coreos-1"), "plan", (again, *VARIABLES["plan"]))))

    assert "plan-is-empty: plan on coreos-1" in found["machine-answers: machine coreos-1"]
    assert found["plan-is-empty: plan"] == set()


def test_sshd_that_allows_passwords_explains_nothing() -> None:
    broken = changed(
        green(), stopped("entry.service", "coreos-1") | {"machines.coreos-1.sshd.passwordauthentication": "yes"}
    )
    assert shown(of(broken)) == {
        "sshd-is-set: sshd on coreos-1": set(),
        "unit-runs: unit entry.service on coreos-1": set(),
    }


def test_a_site_that_is_wrong_while_another_is_stopped_is_a_cause_of_its_own() -> None:
    broken = changed(green(), JPBLOG_STOPPED | {"outside.sites.blog.coreos-1.status": 500})

    assert set(shown(of(broken))) == {
        "unit-runs: unit jpblog.service on coreos-0",
        "site-answers: site blog through coreos-1",
    }


def test_two_machines_are_two_causes() -> None:
    broken = changed(silent(green(), "coreos-1"), stopped("jpblog.service", "coreos-0"))

    assert list(shown(of(broken))) == [
        "machine-answers: machine coreos-1",
        "unit-runs: unit jpblog.service on coreos-0",
    ]


def test_a_global_unit_stands_on_its_own_machine_only() -> None:
    broken = changed(silent(green(), "coreos-1"), stopped("entry.service", "coreos-0"))

    assert shown(of(broken)) == {
        "machine-answers: machine coreos-1": {f"unit-runs: unit {unit}.service on coreos-1" for unit in GLOBAL},
        "unit-runs: unit entry.service on coreos-0": set(),
    }


@pytest.mark.parametrize(
    "other",
    [
        {"machines.coreos-1.units.docker.service.active": "failed"},
        {"machines.coreos-1.contents.jpblog.digest": "0123"},
        {"machines.coreos-2.units.blog.service.active": "failed"},
        {"fleet.units.blog.service.desired": "loaded"},
    ],
)
def test_a_site_stands_on_the_machines_only_that_it_is_on(other: Mapping[str, Any]) -> None:
    """jpblog is on coreos-0, and asked through that."""
    broken = changed(green(), {"outside.sites.jpblog.coreos-0": SITE_DOWN} | other)

    assert set() == shown(of(broken))["site-answers: site jpblog through coreos-0"]


def test_a_silent_machine_that_fleet_still_lists_goes_by_its_name() -> None:
    broken = changed(silent(green(), "coreos-2"), {"fleet.states.entry.service": without(ID["coreos-2"])})

    assert "unit-is-placed: unit entry.service on coreos-2" in shown(of(broken))["machine-answers: machine coreos-2"]


def test_a_foreign_machine_that_fleet_lists() -> None:
    broken = change(green(), "fleet.machines.f00", FleetMachine("192.0.2.99", {"name": "coreos-9"}))

    assert "fleet-lists: fleet machine 192.0.2.99" in shown(of(broken))


# -- the order of causes ---------------------------------------------------------------------------------------------

MANY = changed(
    silent(green(), "coreos-1"),
    JPBLOG_STOPPED
    | stopped("blog.service", "coreos-2")
    | {
        "outside.backing.name server": "timed out",
        "outside.names.genkisugimoto.com": "",
        "machines.coreos-2.sshd.permitrootlogin": "yes",
        "machines.coreos-2.contents.blog.digest": "0123",
        "outside.stranger.status": 200,
        "plan": ("something",),
    },
)


def test_what_readers_lose_comes_first_and_then_the_deepest() -> None:
    found = [cause.finding for cause in of(MANY)]

    assert [finding.rule for finding in found[:3]] == ["backing-service-answers", "machine-answers", "unit-runs"]
    assert found[2].subject == JPBLOG
    layers = [LAYERS.index(finding.layer) for finding in found[3:]]
    assert layers == sorted(layers) and found[-1].layer == "entry"


def test_a_setting_that_hurts_nobody_does_not_begin_the_screen_while_a_site_is_away() -> None:
    """Of three causes at once the shallowest is the one that readers meet."""
    broken = {"machines.coreos-1.sshd.passwordauthentication": "yes", "plan": ("something",)}
    found = of(changed(green(), broken | {"outside.sites.blog.coreos-1.status": 503}))

    assert [cause.finding.rule for cause in found] == ["site-answers", "plan-is-empty", "sshd-is-set"]


def test_of_one_rule_what_began_first_comes_first() -> None:
    broken = changed(
        green(), stopped("jpblog.service", "coreos-0", 1795665900.0) | stopped("blog.service", "coreos-2", 1795665800.0)
    )
    assert [cause.finding.subject.name for cause in of(broken)] == ["blog.service", "jpblog.service"]


def test_every_finding_is_told_once() -> None:
    looks = [green(), later(MANY, 1), later(MANY, 20)]
    found = judge(looks).findings

    told = [finding for cause in causes(found, looks[-1]) for finding in cause.all]
    assert sorted(told, key=str) == sorted(found, key=str)
    assert len({finding.key for finding in found}) == len(found)


def test_the_order_of_findings_makes_no_difference() -> None:
    looks = [green(), later(MANY, 1), later(MANY, 20)]
    findings = list(judge(looks).findings)
    first = causes(findings, looks[-1])
    assert judge(looks).findings == tuple(findings)

    for seed in range(20):
        random.Random(seed).shuffle(findings)
        assert causes(findings, looks[-1]) == first


def test_findings_that_explain_each_other_are_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def finding(name: str) -> Finding:
        return Finding("unit-runs", "unit", Subject("unit", name), "x", "y", 0.0)

    circle = {Subject("unit", "a"): Subject("unit", "b"), Subject("unit", "b"): Subject("unit", "a")}
    monkeypatch.setattr(Foundations, "_below", lambda self, subject: frozenset({circle[subject]}))

    (cause,) = causes([finding("b"), finding("a")], green())
    assert (cause.finding, cause.consequences) == (finding("a"), (finding("b"),))


def test_a_stopped_unit_explains_that_it_did_not_keep_running() -> None:
    looks = [green(), later(changed(green(), JPBLOG_STOPPED), 1)]
    found = shown(causes(judge(looks).findings, looks[-1]))

    for unit in ("jpblog", "jpblog-docker-reg"):
        assert (
            f"unit-keeps-running: unit {unit}.service on coreos-0"
            in found["unit-runs: unit jpblog.service on coreos-0"]
        )


def test_a_unit_that_was_given_another_text_begins_anew() -> None:
    changes = {"fleet.units.blog.service.options": (), "machines.coreos-2.units.blog.service.main_pid": 4711}
    looks = [green(), later(changed(green(), changes), 1)]

    found = shown(causes(judge(looks).findings, looks[-1]))
    assert "unit-keeps-running: unit blog.service on coreos-2" in found["unit-is-as-written: unit blog.service"]


def test_nothing_has_no_cause() -> None:
    assert causes((), green()) == ()


# -- damaged snapshots -----------------------------------------------------------------------------------------------


def damage(snapshot: Snapshot, dice: random.Random) -> Snapshot:
    """One thing that is missing, or as some rule's case has it."""

    def keys(parts: Mapping[Any, Any] | None) -> list[str]:
        return [str(key) for key in parts or {}]

    machine = dice.choice(keys(snapshot.machines) or ["x"])
    options = [f"machines.{machine}"] if machine in snapshot.machines else []
    if options and not snapshot.machines[machine].silent:
        options += [f"machines.{machine}.{part}" for part in ("containers", "etcd", "fleet")]
        for part in ("units", "containers", "ambassadors", "contents", "rooms", "sshd"):
            options += [f"machines.{machine}.{part}.{key}" for key in keys(getattr(snapshot.machines[machine], part))]
    if snapshot.fleet:
        options += ["fleet"]
        options += [
            f"fleet.{part}.{key}"
            for part in ("units", "states", "machines")
            for key in keys(getattr(snapshot.fleet, part))
        ]
    options += [f"intended.units.{unit}" for unit in snapshot.intended.units]
    options += [f"services.{service}" for service in keys(snapshot.services)]
    options += [f"deployed.{site}" for site in keys(snapshot.deployed)]
    options += [
        f"outside.{part}.{key}"
        for part in ("ports", "names", "walks", "sites")
        for key in keys(getattr(snapshot.outside, part))
    ]
    options += ["services", "deployed", "plan", "outside.ports", "outside.names", "outside.walks", "outside.stranger"]
    path = dice.choice(options)
    none = path in ("fleet", "services", "deployed", "plan") or (path.startswith("outside.") and path.count(".") == 1)
    none = none or path.endswith((".containers", ".etcd", ".fleet"))
    return change(snapshot, path, None if none else REMOVED)


def _but_excuses(findings: Iterable[Finding]) -> list[tuple[str, Subject]]:
    return sorted(it.key for it in findings if not RULES[it.rule].excuses)


@given(st.randoms(use_true_random=False), st.integers(1, 12))
def test_damaged_snapshots_are_judged(dice: random.Random, count: int) -> None:
    now = green()
    changes = dice.choice(dice.choice(list(CASES.values())))[0]
    if dice.random() < 0.5:
        now = look(changes)
    before = now
    for _ in range(count):
        before, now = now, damage(now, dice)
    looks = [green(), later(before, 1), later(now, 2), later(now, 20)]

    judged = judge(looks)
    found = causes(judged.all, looks[-1])

    # none is lost but an excuse, which is none where it does not explain all the others
    told, known = [it for cause in found for it in cause.all], judged.all
    assert _but_excuses(told) == _but_excuses(known)
    assert {finding.rule for finding in judged.all} <= set(RULES)
    assert all(map(str, judged.all))


def test_causes_of_one_kind_are_in_the_order_of_their_machines_numbers() -> None:
    names = ["coreos-10", "coreos-2", "coreos-1"]
    wrong = [
        Finding("machine-answers", "provision", Subject("machine", "", name), "an answer", "none", 1.0)
        for name in names
    ]

    assert [cause.finding.subject.machine for cause in causes(wrong, green())] == ["coreos-1", "coreos-2", "coreos-10"]


# -- an excuse ---------------------------------------------------------------------------------------------------------

SLOW = {f"machines.{name}.{part}": value for name in ID for part, value in (("worked", 8.0), ("load", 40.0))}


def test_machines_that_are_too_slow_are_why_a_unit_does_not_run_in_time() -> None:
    found = shown(of(changed(green(), SLOW | starting("jpblog.service", "coreos-0"))))

    assert list(found) == ["processors-suffice: processors"]
    assert "unit-runs: unit jpblog.service on coreos-0" in found["processors-suffice: processors"]


def test_machines_that_are_too_slow_are_no_excuse_for_what_is_wrong_however_slow_they_are() -> None:
    wrong = {"machines.coreos-1.filter": ""} | stopped("jpblog.service", "coreos-0")
    found = shown(of(changed(green(), SLOW | wrong)))

    assert list(found) == ["filter-is-loaded: filter on coreos-1", "unit-runs: unit jpblog.service on coreos-0"]


def test_machines_that_are_slow_and_not_crowded_are_no_excuse() -> None:
    idle = {name: 0.2 if name.endswith("load") else value for name, value in SLOW.items()}
    found = shown(of(changed(green(), idle | stopped("jpblog.service", "coreos-0"))))

    assert list(found) == ["unit-runs: unit jpblog.service on coreos-0"]


def test_a_look_before_the_newest_tells_too_that_machines_were_too_slow() -> None:
    broken = changed(green(), starting("jpblog.service", "coreos-0"))
    looks = [later(changed(broken, SLOW), 1), later(broken, 20)]

    (cause,) = causes(judge(looks).findings, looks[-1])
    assert cause.finding.rule == "processors-suffice" and cause.finding.since == looks[0].asked


# -- what nobody declared --------------------------------------------------------------------------------------------

PORT_CLOSED = (
    {"machines.coreos-2.foreign_rules": ("ip raw PREROUTING: tcp dport 32768 drop",), "machines.coreos-2.apps.blog": 0}
    | {f"machines.{name}.ambassadors.blog": {RUNS_AT: "DOWN"} for name in ID}
    | site_down("blog")
)


def test_a_filter_rule_is_why_an_app_does_not_answer() -> None:
    """And why its sidekick has it begin anew, and takes it out."""
    found = shown(of(changed(green(), PORT_CLOSED)))
    assert list(found) == ["filter-is-declared: filter on coreos-2"]

    anew = starting("blog.service", "coreos-2") | {"machines.coreos-2.containers.blog": REMOVED, "services.blog": {}}
    (found,) = (shown(of(changed(green(), PORT_CLOSED | anew | no_servers("blog")))),)
    assert list(found) == ["filter-is-declared: filter on coreos-2"]
    assert "unit-runs: unit blog.service on coreos-2" in found["filter-is-declared: filter on coreos-2"]


def test_a_filter_rule_is_no_reason_for_what_no_port_leads_to() -> None:
    others = {f"{ONE}.contents.blog.digest": "0123", "machines.coreos-2.sshd.passwordauthentication": "yes"}
    found = shown(of(changed(green(), PORT_CLOSED | others | stopped("jpblog.service", "coreos-0"))))

    assert set(found) == {
        "filter-is-declared: filter on coreos-2",
        "sshd-is-set: sshd on coreos-2",
        "contents-are-held: contents of blog on coreos-1",
        "unit-runs: unit jpblog.service on coreos-0",
    }


def test_a_tag_that_was_moved_is_why_a_container_is_of_another_image() -> None:
    moved = {f"{ONE}.images.{WEB}.tags": (), f"{ONE}.images.{AMBASSADOR}.tags": TAGS}
    assert list(shown(of(changed(green(), moved)))) == ["tag-leads-to-its-image: image web:1 on coreos-1"]

    begun = {f"{ONE}.containers.entry.image": AMBASSADOR, "outside.sites.blog.coreos-1": SITE_DOWN}
    assert shown(of(changed(green(), moved | begun))) == {
        "tag-leads-to-its-image: image web:1 on coreos-1": {
            "container-has-image: container entry on coreos-1",
            "site-answers: site blog through coreos-1",
        }
    }


def test_what_does_not_serve_the_operators_user_is_no_second_cause_of_what_serves_nobody() -> None:
    closed = {f"{ONE}.operator.fleet": "refused"}
    fleet_stopped = {f"{ONE}.fleet": None, f"{ONE}.units.fleet.service.active": "inactive"}

    assert list(shown(of(changed(green(), closed)))) == ["operator-is-served: machine coreos-1"]
    assert list(shown(of(changed(green(), closed | fleet_stopped)))) == ["system-unit-runs: fleet on coreos-1"]


def test_sudo_that_asks_for_a_password_is_why_a_machine_tells_nothing() -> None:
    found = shown(of(silent(green(), "coreos-1", refused="sudo")))

    assert list(found) == ["operator-is-served: machine coreos-1"]
    assert "machine-answers: machine coreos-1" in found["operator-is-served: machine coreos-1"]
