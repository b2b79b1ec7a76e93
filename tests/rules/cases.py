"""What each rule finds: a change of the green snapshot, and the subjects that are then found, by that rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harness.snapshot.data import Answer, Container, FleetMachine, FleetUnit, Image, Registration, Release, Snapshot
from tests.transcripts.snapshots import REMOVED, change, changed, green, silent, without

# machines by id, in the green snapshot
ID = {name: machine.machine_id for name, machine in green().machines.items()}
ONE = "machines.coreos-1"
ADDRESSES = tuple(green().intended.machines.values())
UNIT = "machines.coreos-2.units.blog.service"
BLOG = "fleet.units.blog.service"
SIDEKICK = "fleet.units.blog-docker-reg.service"
# of the green snapshot: blog runs on coreos-2, jpblog on coreos-0
RUNS_AT = "192.0.2.12:32768"
# ids of images there, and tags that all lead to one
WEB, AMBASSADOR = "99d736b1337d8b14", "5402303635928308"
TAGS = ("192.0.2.3:5000/ambassador:1", "192.0.2.3:5000/web:1")

Changes = Mapping[str, Any] | Callable[[Snapshot], Snapshot]


def machine_of(*, unit: str, peer: str) -> Callable[[Any], Any]:
    """Makes a unit of fleet's registry follow a peer."""
    return lambda held: FleetUnit(
        held.desired,
        held.current,
        held.machine_id,
        (*green().intended.units[unit].options, ("X-Fleet", "MachineOf", peer)),
    )


def on_all(part: str, value: Any) -> dict[str, Any]:
    return {f"machines.{name}.{part}": value for name in ID}


def case(changes: Changes, *subjects: str) -> tuple[Changes, tuple[str, ...]]:
    return changes, subjects


CASES: dict[str, list[tuple[Changes, tuple[str, ...]]]] = {
    "backing-service-answers": [
        case({"outside.backing.name server": "timed out"}, "backing service name server"),
        case({"outside.backing.image registry": "status 503"}, "backing service image registry"),
        case({"outside.backing.image registry": ""}),
    ],
    "processors-suffice": [
        case({**on_all("worked", 5.0), **on_all("load", 40.0), **on_all("processors", 8)}, "processors"),
        case({**on_all("worked", 4.9), **on_all("load", 40.0), **on_all("processors", 8)}),
        case({**on_all("worked", 60.0), **on_all("load", 39.0), **on_all("processors", 8)}),
        case({f"{ONE}.worked": 60.0, f"{ONE}.load": 100.0}),
        case(lambda now: silent(now, *ID)),
    ],
    "plan-is-empty": [
        case({"plan": ("machine[1] is created",)}, "plan"),
        case({"plan": None}),
    ],
    "plan-is-told": [
        case({"plan": None}, "plan"),
        case({"plan": None, "unasked": ("plan",)}),
    ],
    "agent-holds-a-key": [
        case(lambda now: change(silent(now, *ID, refused="key"), "outside.keys", 0), "ssh-agent"),
        case(lambda now: change(silent(now, "coreos-1", refused="key"), "outside.keys", None), "ssh-agent"),
        case(lambda now: change(silent(now, "coreos-1", refused="key"), "outside.keys", 1)),
        case(lambda now: change(silent(now, "coreos-1"), "outside.keys", 0)),
        case(lambda now: change(silent(now, *ID, refused="too many keys"), "outside.keys", 7), "ssh-agent"),
    ],
    "host-key-is-pinned": [
        case(lambda now: silent(now, "coreos-1", refused="host key"), "machine coreos-1"),
        case(lambda now: silent(now, *ID, refused="host key", through="coreos-0"), "machine coreos-0"),
        case(lambda now: silent(now, "coreos-1", refused="key")),
    ],
    "machine-answers": [
        case(lambda now: silent(now, "coreos-1"), "machine coreos-1"),
        case(lambda now: silent(now, *ID), "machine coreos-0", "machine coreos-1", "machine coreos-2"),
    ],
    "machines-reach-each-other": [
        case({f"{ONE}.reached.192.0.2.10": 0.0}, "network on coreos-1"),
        case({f"{ONE}.reached.192.0.2.10": 0.8, f"{ONE}.reached.192.0.2.12": 0.6}, "network on coreos-1"),
        # others say so, and it not
        case({f"machines.{name}.reached.192.0.2.10": 0.0 for name in ("coreos-1", "coreos-2")}, "network on coreos-0"),
        # of two whose etcd is well only one is cut off
        case({f"{ONE}.reached.192.0.2.10": 0.0, "machines.coreos-0.etcd.healthy": False}, "network on coreos-0"),
        case(
            {f"{ONE}.reached": dict.fromkeys(ADDRESSES, 0.0), "machines.coreos-0.reached.192.0.2.12": 0.0},
            "network on coreos-1",
            "network on coreos-2",
        ),
        case(lambda now: changed(silent(now, "coreos-1"), {"machines.coreos-0.reached.192.0.2.11": 0.0})),
        case({f"{ONE}.reached.192.0.2.11": 0.0, f"{ONE}.reached.192.0.2.99": 0.0}),
        case(on_all("reached", {})),
    ],
    "machine-ids-differ": [
        case({f"{ONE}.machine_id": ID["coreos-0"]}, "machine coreos-1"),
        case({f"{ONE}.machine_id": ""}, "machine coreos-1"),
        case(lambda now: silent(now, "coreos-0", "coreos-1")),
    ],
    "host-keys-differ": [
        case({f"{ONE}.host_key": green().machines["coreos-2"].host_key}, "machine coreos-2"),
        case({f"{ONE}.host_key": ""}, "machine coreos-1"),
    ],
    "docker-answers": [
        case({f"{ONE}.containers": None}, "docker on coreos-1"),
        case({f"{ONE}.images": None}, "docker on coreos-1"),
        case({f"{ONE}.containers": None, f"{ONE}.units.docker.service.active": "inactive"}),
    ],
    "answer-is-whole": [
        case({f"{ONE}.missing": ("journal", "etcd")}, "machine coreos-1"),
        case({f"{ONE}.missing": ("texts", "containers", "ambassadors", "etcd", "metrics", "fleet")}),
        # its etcd answers, and so it was to try
        case({f"{ONE}.missing": ("reached",)}, "machine coreos-1"),
        case({f"{ONE}.missing": ("reached", "etcd")}),
    ],
    "boot-finished": [
        case({f"{ONE}.units.first-boot.service.active": "failed"}, "boot on coreos-1"),
        case({f"{ONE}.units.first-boot.service.active": "activating"}, "boot on coreos-1"),
        case({f"{ONE}.units.first-boot.service.active": "inactive"}),
        case({f"{ONE}.units.first-boot.service.result": "exit-code"}, "boot on coreos-1"),
        case({f"{ONE}.units.first-boot.service": REMOVED}, "boot on coreos-1"),
        case({f"{ONE}.state": "starting"}, "boot on coreos-1"),
        case({f"{ONE}.state": "degraded"}),
    ],
    "clock-agrees": [
        case({f"{ONE}.clock_ahead": 1.2}, "clock on coreos-1"),
        case({f"{ONE}.clock_ahead": -3600.0}, "clock on coreos-1"),
        case({f"{ONE}.clock_ahead": -1.0}),
    ],
    "room-is-left": [
        case({f"{ONE}.rooms./run.free": 0}, "room /run on coreos-1"),
        case({f"{ONE}.rooms.memory.free": 1}, "room memory on coreos-1"),
        case({f"{ONE}.rooms": {}}),
    ],
    "memory-suffices": [
        case({"outside.kernel": ("oom-kill: x", "oom-kill: y")}, "kernel log oom-kill: x", "kernel log oom-kill: y"),
        case({"outside.kernel": ()}),
    ],
    "kernel-log-is-told": [
        case({"outside.kernel": None}, "kernel log"),
        case({"outside.kernel": None, "unasked": ("kernel",)}),
    ],
    "sshd-is-set": [
        case({f"{ONE}.sshd.passwordauthentication": "yes"}, "sshd on coreos-1"),
        case({f"{ONE}.sshd.allowusers": REMOVED, f"{ONE}.sshd.permitrootlogin": "yes"}, "sshd on coreos-1"),
        case({f"{ONE}.sshd": {}}),
    ],
    "operator-is-served": [
        case({f"{ONE}.operator": {"fleet": "refused", "docker": "refused"}}, "machine coreos-1"),
        case({f"{ONE}.operator": {"fleetctl": "it is in no folder of /bin"}}, "machine coreos-1"),
        case({f"{ONE}.operator.fleet": "refused", f"{ONE}.fleet": None}),
        case({f"{ONE}.operator.docker": "refused", f"{ONE}.containers": None}),
        case({f"{ONE}.operator": None}),
        case(lambda now: silent(now, "coreos-1", refused="sudo"), "machine coreos-1"),
        case(lambda now: silent(now, "coreos-1", refused="key")),
    ],
    "system-unit-runs": [
        case({f"{ONE}.units.etcd.service.active": "inactive"}, "etcd on coreos-1"),
        case({f"{ONE}.units.fleet.socket.active": "failed"}, "fleet on coreos-1"),
        case({f"{ONE}.units.docker.service": REMOVED}, "docker on coreos-1"),
        case({f"{ONE}.units.contents.service.active": "activating"}, "contents service on coreos-1"),
        case({f"{ONE}.units.docker.service.active": "inactive", "intended.started": False}),
        case({f"{ONE}.units": {}}),
    ],
    "no-system-unit-failed": [
        case(
            {f"{ONE}.failed": ("contents-source.socket", "cron.service")},
            "system unit contents-source.socket on coreos-1",
            "system unit cron.service on coreos-1",
        ),
        case({f"{ONE}.failed": ("blog.service", "etcd.service", "first-boot.service")}),
    ],
    "filter-is-loaded": [
        case({f"{ONE}.filter": ""}, "filter on coreos-1"),
        case({f"{ONE}.filter": "0123456789abcdef"}, "filter on coreos-1"),
        case(on_all("filter", ""), "filter on coreos-0", "filter on coreos-1", "filter on coreos-2"),
        case({f"{ONE}.filter": "", f"{ONE}.missing": ("filter",)}),
        # what two did not tell is not what most have
        case(
            {
                f"machines.{name}.{part}": value
                for name in ("coreos-0", "coreos-1")
                for part, value in (("filter", ""), ("missing", ("filter",)))
            }
        ),
    ],
    "filter-is-declared": [
        case({f"{ONE}.foreign_rules": ("ip raw PREROUTING: tcp dport 32768 drop",) * 5}, "filter on coreos-1"),
    ],
    "etcd-is-healthy": [
        case({f"{ONE}.etcd.healthy": False}, "etcd on coreos-1"),
        case({f"{ONE}.etcd": None}, "etcd on coreos-1"),
        # one that is stopped is not healthy: why, another rule tells
        case({f"{ONE}.etcd": None, f"{ONE}.units.etcd.service.active": "inactive"}, "etcd on coreos-1"),
    ],
    "etcd-members-are-right": [
        case({f"{ONE}.etcd.members": ("coreos-0", "coreos-1")}, "etcd on coreos-1"),
        case(
            on_all("etcd.members", ("coreos-0", "coreos-2")), "etcd on coreos-0", "etcd on coreos-1", "etcd on coreos-2"
        ),
        case(on_all("etcd.members", ("coreos-0", "coreos-1"))),
    ],
    "etcd-has-one-leader": [
        case({f"{ONE}.etcd.leader": "0123"}, "etcd"),
        case(on_all("etcd.leader", ""), "etcd"),
        case({f"{ONE}.etcd.leader": ""}, "etcd on coreos-1"),
        case({f"{ONE}.etcd.leader": "0123", f"{ONE}.etcd.role": ""}),
    ],
    "etcd-keeps-its-leader": [
        case(on_all("etcd.leader", "0123"), "etcd"),
        case(on_all("etcd.leader", "")),
        case(on_all("etcd.leader", "0123") | on_all("boot", "another")),
    ],
    "fleet-answers": [
        case({f"{ONE}.fleet": None}, "fleet on coreos-1"),
        case({f"{ONE}.fleet": None, f"{ONE}.units.fleet.service.active": "failed"}, "fleet on coreos-1"),
    ],
    "fleet-lists": [
        case({f"fleet.machines.{ID['coreos-1']}": REMOVED}, "fleet on coreos-1"),
        case({"fleet.machines.f00": FleetMachine("192.0.2.99", {})}, "fleet machine 192.0.2.99"),
        case({"fleet": None}, "fleet"),
        case({"fleet": None} | on_all("fleet", None), "fleet"),
        case(lambda now: silent(now, "coreos-1")),
        case(
            lambda now: changed(silent(now, "coreos-1"), {f"fleet.machines.{ID['coreos-1']}": REMOVED}),
            "fleet on coreos-1",
        ),
    ],
    "fleet-metadata": [
        case({f"fleet.machines.{ID['coreos-1']}.metadata.name": "coreos-0"}, "fleet on coreos-1"),
        case({f"fleet.machines.{ID['coreos-1']}.metadata": {}}, "fleet on coreos-1"),
        case({f"fleet.machines.{ID['coreos-1']}.metadata.entry": "no"}, "fleet on coreos-1"),
        case({f"fleet.machines.{ID['coreos-1']}.metadata.entry": REMOVED}, "fleet on coreos-1"),
        case({"intended.entry_points": ("coreos-0", "coreos-2")}, "fleet on coreos-1"),
    ],
    "fleet-views-agree": [
        case({f"{ONE}.fleet": without(ID["coreos-0"])}, "fleet on coreos-1"),
        case({f"{ONE}.fleet": None}),
    ],
    "machine-listens": [
        case({f"{ONE}.listening": without(("*:873", "systemd"))}, "port 873 on coreos-1"),
        case({f"{ONE}.listening": ()}, "port 22 on coreos-1", "port 873 on coreos-1", "port 2379 on coreos-1"),
        case({f"{ONE}.listening": (), f"{ONE}.missing": ("listening",)}),
    ],
    "fleet-has-no-port": [
        case({f"{ONE}.listening": lambda there: (*there, ("*:49153", "fleetd"))}, "fleet on coreos-1"),
    ],
    "unit-is-held": [
        case({BLOG: REMOVED}, "unit blog.service"),
        case({"fleet": None}, "fleet"),
    ],
    "unit-is-as-written": [
        case({f"{BLOG}.options": (("Service", "ExecStart", "/bin/true"),)}, "unit blog.service"),
        case({"fleet.units.foreign.service": FleetUnit("launched", "launched", ID["coreos-0"], ())}),
    ],
    "unit-is-wanted": [
        case({f"{BLOG}.desired": "loaded"}, "unit blog.service"),
        case({f"{BLOG}.desired": "loaded", "intended.started": False}),
    ],
    "unit-is-placed": [
        case({f"{BLOG}.machine_id": ""}, "unit blog.service", "unit blog-docker-reg.service on coreos-2"),
        case({f"{SIDEKICK}.machine_id": ID["coreos-1"]}, "unit blog-docker-reg.service on coreos-1"),
        case({f"{SIDEKICK}.machine_id": "f00" * 8}, "unit blog-docker-reg.service on f00f00f0"),
        case(
            {SIDEKICK: machine_of(unit="blog-docker-reg.service", peer="nobody.service")},
            "unit blog-docker-reg.service",
        ),
        case({"fleet.states.entry.service": without(ID["coreos-1"])}, "unit entry.service on coreos-1"),
        case({f"{BLOG}.desired": "inactive", f"{BLOG}.machine_id": "", f"{SIDEKICK}.desired": "inactive"}),
    ],
    "unit-is-reported": [
        case({f"{BLOG}.current": "loaded"}, "unit blog.service on coreos-2"),
        case({"fleet.states.blog.service": ()}, "unit blog.service on coreos-2"),
        case({"fleet.states.blog.service": tuple(ID.values())}, "unit blog.service on coreos-2"),
        case({"fleet.units.entry.service.current": "loaded"}),
    ],
    "unit-is-not-overridden": [
        case({f"{UNIT}.drop_ins": ("/etc/systemd/system/blog.service.d/x.conf",)}, "unit blog.service on coreos-2"),
        case({f"{UNIT}.drop_ins": ("x.conf",), f"{UNIT}.load": "masked"}),
    ],
    "unit-text-is-loaded": [
        case({f"{UNIT}.text": "0" * 64}, "unit blog.service on coreos-2"),
        case({f"{UNIT}.text": ""}, "unit blog.service on coreos-2"),
        case({f"{UNIT}.needs_reload": True}, "unit blog.service on coreos-2"),
        case({f"{BLOG}.options": (("Service", "ExecStart", "/bin/true"),)}, "unit blog.service on coreos-2"),
    ],
    "unit-restarts-for-ever": [
        case({f"{UNIT}.restart": "on-failure"}, "unit blog.service on coreos-2"),
        case({f"{UNIT}.restart_sec": 0.0}, "unit blog.service on coreos-2"),
        case({f"{UNIT}.restart_sec": 2.0}, "unit blog.service on coreos-2"),
        case({f"{UNIT}.restart_sec": 2.1}),
        case({f"{UNIT}.restart_sec": 0.0, f"{UNIT}.start_limit_interval": 0.0}),
        case({f"{UNIT}.restart_sec": 0.0, f"{UNIT}.start_limit_burst": 0}),  # no limit either
        case({f"{UNIT}.start_limit_interval": None}, "unit blog.service on coreos-2"),  # infinity
    ],
    "unit-runs": [
        case({f"{UNIT}.active": "inactive", f"{UNIT}.sub": "dead"}, "unit blog.service on coreos-2"),
        case({f"{UNIT}.active": "activating", f"{UNIT}.sub": "auto-restart"}, "unit blog.service on coreos-2"),
        case({UNIT: REMOVED}, "unit blog.service on coreos-2"),
        case({f"{ONE}.units.entry.service.sub": "exited"}, "unit entry.service on coreos-1"),
        case({f"{UNIT}.active": "inactive", f"{BLOG}.desired": "loaded"}),
        case({f"{UNIT}.active": "inactive", "intended.started": False}),
    ],
    "unit-runs-nowhere-else": [
        case({f"{ONE}.units.blog.service.active": "active"}, "unit blog.service on coreos-1"),
        case(
            {
                "fleet.units": {},
                "fleet.states": {},
                "intended.units": lambda units: {"entry.service": units["entry.service"]},
            },
            "unit entry.service on coreos-0",
            "unit entry.service on coreos-1",
            "unit entry.service on coreos-2",
        ),
    ],
    "unit-keeps-running": [
        case({f"{UNIT}.main_pid": 4711}, "unit blog.service on coreos-2"),
        case({f"{UNIT}.main_pid": 0, f"{UNIT}.active": "failed"}, "unit blog.service on coreos-2"),
        case({f"{UNIT}.main_pid": 4711, "machines.coreos-2.boot": "another"}),
    ],
    "container-runs": [
        case({f"{ONE}.containers.entry": REMOVED}, "container entry on coreos-1"),
        case({f"{ONE}.containers.entry.state": "paused"}, "container entry on coreos-1"),
        case({f"{ONE}.containers.entry": REMOVED, f"{ONE}.units.entry.service.active": "failed"}),
        # what is not known does not hold
        case(
            {f"{ONE}.containers": None},
            *(
                f"container {name} on coreos-1"
                for name in ("blog-dynamic-amb", "entry", "etcd-amb", "jpblog-dynamic-amb")
            ),
        ),
    ],
    "instance-answers": [
        case({"machines.coreos-2.apps.blog": 0}, "container blog on coreos-2"),
        case({"machines.coreos-2.apps": {}}, "container blog on coreos-2"),
        case({"machines.coreos-2.apps": {}, "machines.coreos-2.missing": ("apps",)}),
        case({"machines.coreos-2.apps": {}, "machines.coreos-2.containers.blog.state": "paused"}),
    ],
    "container-has-memory": [
        case(
            {f"{ONE}.containers.x": Container("1", "exited", exit_status=137, out_of_memory=True)},
            "container x on coreos-1",
        ),
    ],
    "tag-leads-to-its-image": [
        # before anything starts from it; who is right, the registry says
        case({f"{ONE}.images.{WEB}.digests": ("0123",)}, "image web:1 on coreos-1"),
        case(on_all(f"images.{WEB}.digests", ("0123",)), *(f"image web:1 on {name}" for name in ID)),
        case({f"{ONE}.images.{WEB}.digests": ()}, "image web:1 on coreos-1"),
        case({f"{ONE}.images.{AMBASSADOR}.tags": TAGS}, "image web:1 on coreos-1"),
        case({f"{ONE}.images.0123": Image(("192.0.2.3:5000/other:1", "web:1", "another:5000/web:1"), ("0123",))}),
        case({f"{ONE}.images": {}, f"{ONE}.containers": {}}),
        case({f"{ONE}.images": None}),
        case({"outside.images.web:1": ""}, "image web:1"),
        case({**on_all(f"images.{WEB}.digests", ("0123",)), "outside.images": {}}),
    ],
    "container-has-image": [
        case({f"{ONE}.containers.entry.image": AMBASSADOR}, "container entry on coreos-1"),
        # of a unit that runs on one machine only
        case({"machines.coreos-2.containers.blog.image": AMBASSADOR}, "container blog on coreos-2"),
        case({f"{ONE}.containers.entry.image": "0123", f"{ONE}.images.0123": Image()}, "container entry on coreos-1"),
        case({f"{ONE}.containers.entry.image": "0123"}, "container entry on coreos-1"),
        # another engine's store knows it by another id
        case(
            {
                f"{ONE}.containers.entry.image": "0123",
                f"{ONE}.images": lambda images: {AMBASSADOR: images[AMBASSADOR], "0123": images[WEB]},
            }
        ),
        # containerd's store knows it by its manifest, and no tag leads to it any more
        case({f"{ONE}.containers.entry.image": green().outside.images["web:1"][:16]}),
        case({f"{ONE}.containers.entry.image": "0123", f"{ONE}.images": None}),
        case({f"{ONE}.containers.entry.image": AMBASSADOR, "outside.images": {}}),
    ],
    "registrations-are-known": [
        case({"services": None}, "etcd"),
        case({"services": None, "intended.started": False}),
        case(lambda now: changed(silent(now, *ID), {"services": None})),
    ],
    "instance-is-registered": [
        case({"services.blog": {}}, "registration blog on coreos-2"),
        case({"services": {}}, "registration blog on coreos-2", "registration jpblog on coreos-0"),
        case({"services": None}),
    ],
    "registration-is-right": [
        case({"services.blog.coreos-2:blog.address": "192.0.2.12:1"}, "registration blog/coreos-2:blog"),
        case({"services.blog.coreos-1:blog": Registration("x", "", 5)}, "registration blog/coreos-1:blog"),
        case({"services.blog.coreos-2:blog.ttl": None}, "registration blog/coreos-2:blog"),
        case({"machines.coreos-2.containers.blog": REMOVED}, "registration blog/coreos-2:blog"),
        case(lambda now: silent(now, "coreos-2")),
    ],
    "ambassador-follows": [
        case({f"{ONE}.ambassadors.blog": {}}, "ambassador of blog on coreos-1"),
        case({f"{ONE}.ambassadors.blog": REMOVED}, "ambassador of blog on coreos-1"),
        case({f"{ONE}.ambassadors.blog.192.0.2.99:1": "DOWN"}, "ambassador of blog on coreos-1"),
        case(
            {f"{ONE}.ambassadors": {}, f"{ONE}.containers.blog-dynamic-amb.state": "exited"},
            "ambassador of jpblog on coreos-1",
        ),
    ],
    "ambassador-reaches": [
        case({f"{ONE}.ambassadors.blog.{RUNS_AT}": "DOWN"}, "ambassador of blog on coreos-1"),
        case({f"{ONE}.ambassadors.blog.192.0.2.99:1": "UP"}, "ambassador of blog on coreos-1"),
        case({f"{ONE}.ambassadors": {}}),
    ],
    "helpers-are-there": [
        case({f"{ONE}.helpers": {"name/publish.sh": "", "web/configure.sh": "0" * 64}}, "helper files on coreos-1"),
        case({f"{ONE}.helpers": {"name/publish.sh": ""}, f"{ONE}.missing": ("helpers",)}),
    ],
    "deployment-is-remembered": [
        case({"deployed.blog": REMOVED}, "contents of blog"),
        case({"deployed": {}, "intended.deployed": ()}),
        case({"deployed": None}, "contents of blog", "contents of jpblog"),
    ],
    "contents-are-held": [
        case({f"{ONE}.contents.blog": REMOVED}, "contents of blog on coreos-1"),
        case({f"{ONE}.contents.blog.version": "0123"}, "contents of blog on coreos-1"),
        case({f"{ONE}.contents.blog.digest": "0123"}, "contents of blog on coreos-1"),
        case(
            {"deployed.blog": Release("0123", "4567")},
            "contents of blog on coreos-0",
            "contents of blog on coreos-1",
            "contents of blog on coreos-2",
        ),
        case({f"{ONE}.contents": {}, f"{ONE}.missing": ("contents",)}),
        case({f"{ONE}.contents.blog": REMOVED, "intended.deployed": ("jpblog",)}),
    ],
    "ports-are-told": [
        case({"outside.ports": None}, "ports"),
        case({"outside.ports": None, "unasked": ("ports",)}),
    ],
    "port-is-open": [
        case({"outside.ports.coreos-1": (80,)}, "port 22 on coreos-1"),
        case({"outside.ports.coreos-1": ()}, "port 22 on coreos-1", "port 80 on coreos-1"),
        case({"outside.ports.coreos-1": (22,), "intended.started": False}),
        case({"outside.ports.coreos-1": (22,), "intended.entry_points": ("coreos-0", "coreos-2")}),
        case({"outside.ports": None}),
    ],
    "port-is-closed": [
        case({"outside.ports.coreos-1": (22, 80, 2379)}, "port 2379 on coreos-1"),
    ],
    "entry-has-routes": [
        case({f"{ONE}.routes": {}}, "entry point on coreos-1"),
        case({f"{ONE}.routes.genkisugimoto.com": "jpblog"}, "entry point on coreos-1"),
        case({f"{ONE}.routes.nobody.example": "blog"}, "entry point on coreos-1"),
        case({f"{ONE}.routes": {}, f"{ONE}.containers.entry.state": "exited"}),
    ],
    "site-answers": [
        case({"outside.sites.blog.coreos-1": Answer(failed="refused")}, "site blog through coreos-1"),
        case({"outside.sites.blog.coreos-1.status": 503}, "site blog through coreos-1"),
        case({"outside.sites.blog.coreos-1.version": ""}, "site blog through coreos-1"),
        case({"outside.sites.blog.coreos-1.status": 503, "intended.deployed": ("jpblog",)}),
        case({"outside.sites.blog.coreos-1.version": "", "deployed": None}),
        case({"outside.sites.blog.coreos-1": REMOVED}, "site blog through coreos-1"),
    ],
    "sites-are-walked": [
        case({"outside.walks": None}, "site blog", "site jpblog"),
        case({"outside.walks": None, "unasked": ("walks",)}),
    ],
    "site-is-whole": [
        case({"outside.walks.blog.broken": ("a: b: 404",)}, "site blog"),
        case({"outside.walks.blog.failed": "no answer"}, "site blog"),
        case({"outside.walks": None}),
    ],
    "site-is-as-deployed": [
        case({"outside.walks.blog.differing": ("a.html",)}, "site blog"),
    ],
    "sites-are-apart": [
        case({"outside.walks.blog.foreign": tuple(f"http://x/{number}" for number in range(9))}, "site blog"),
    ],
    "stranger-gets-nothing": [
        case({"outside.stranger.status": 200}, "entry point"),
        case({"outside.stranger": Answer(failed="refused")}, "entry point"),
        case({"outside.stranger.status": 200, "intended.started": False}),
        case({"outside.stranger": None}, "entry point"),
    ],
    "names-are-told": [
        case({"outside.names": None}, *(f"name {name}" for name in green().outside.names or ())),
        case({"outside.names": None, "unasked": ("names",)}),
    ],
    "name-leads": [
        case({"outside.names.genkisugimoto.com": ""}, "name genkisugimoto.com"),
        case({"outside.names.genkisugimoto.com": "192.0.2.99"}, "name genkisugimoto.com"),
        case({"outside.names.jp.genkisugimoto.com": "192.0.2.10"}, "name jp.genkisugimoto.com"),
        case(
            {"intended.entry_points": ("coreos-0", "coreos-1")},
            *(f"name {name}" for name in green().outside.names or ()),
        ),
        case({"outside.names": None}),
        case({"outside.names.genkisugimoto.com": "", "intended.started": False}),
    ],
}


def look(changes: Changes) -> Snapshot:
    """The green snapshot with these changes."""
    return changes(green()) if callable(changes) else changed(green(), changes)
