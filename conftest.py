"""The composition root of a run: builds the real drivers, for the steps.

`bin/platform` starts pytest with PLATFORM_FOLDER set to the run's folder, where the record is, and PLATFORM_WORKPLACE
to that of the run that made the cluster; the drivers take all they know from there.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.drivers.cluster import Cluster, Connections
from harness.drivers.deploying import DeploymentUnderWay
from harness.drivers.etcd import Registration
from harness.drivers.fleetctl import Fleetctl
from harness.drivers.machines import Machines
from harness.drivers.power import Power
from harness.drivers.shell import OperatorShell
from harness.drivers.terraform import NothingApplied, Outputs, Terraform, target_data
from harness.drivers.traffic import Traffic, remembered, request_to
from harness.errors import HarnessError, Misconfigured, PlatformWrong
from harness.model import tfvars
from harness.record.log import Recorder
from harness.rules.finding import Subject
from harness.runs.diagnosis import LOOKS_WITHIN
from harness.runs.faults import Injections, Making, Seeding, seeding_lock
from harness.runs.fingerprint import fingerprint
from harness.runs.progress import Progress, last_green, looker_of
from harness.runs.restoring import restore
from harness.runs.watch import RuleBroken, Watch
from harness.runs.workplace import OUTPUTS, SECOND_SHELL, SHELL_STATE, builds
from harness.seams.patience import patience
from harness.seams.process import Processes
from harness.seams.wait import Waiter
from harness.snapshot.look import Looker

ROOT = Path(__file__).parent
# Seconds that the name server's answer counts, as its own time to live (5) would let a resolver
TRUSTED_FOR = 1.0
# Seconds behind a scenario that failed, in which all is to be well again for those behind it to be executed
WELL_AGAIN = 60.0
# In the workplace: the process that deploys
DEPLOYING = "deploying.pid"

pytest_plugins = [
    "harness.runs.plugins.choosing",
    "harness.runs.plugins.recording",
    "steps.operator",
    "steps.discovery",
    "steps.infrastructure",
    "steps.cluster",
    "steps.units",
    "steps.sites",
    "steps.services",
    "steps.machines",
    "steps.deployments",
    "steps.power",
]


# -- the drivers: connections last through the run, results never do --------------------------------------------------


@pytest.fixture(scope="session")
def process(recorder: Recorder) -> Processes:
    return Processes(recorder)


@pytest.fixture(scope="session")
def waiter(recorder: Recorder) -> Waiter:
    return Waiter(recorder)


@pytest.fixture(scope="session")
def read_only(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--read-only"))


@pytest.fixture(scope="session")
def workplace(recorder: Recorder) -> Path:
    """Where the operator works; without a record, which says so, there is none."""
    return Path(os.environ["PLATFORM_WORKPLACE"])


@pytest.fixture(scope="session")
def first_shell(process: Processes, workplace: Path, read_only: bool) -> OperatorShell:
    """The operator's, from the first line of the runbook to the last."""
    shell = OperatorShell(process, workplace / SHELL_STATE, read_only=read_only)
    # the agent of this run: the one that the cluster was kept with may be gone
    shell.own = {"SSH_AUTH_SOCK": os.environ["SSH_AUTH_SOCK"]} if "SSH_AUTH_SOCK" in os.environ else {}
    return shell


@pytest.fixture
def operator(first_shell: OperatorShell) -> OperatorShell:
    """The shell that the operator types in; a scenario may put another in its place."""
    return first_shell


@pytest.fixture
def fleetctl(process: Processes, operator: OperatorShell) -> Fleetctl:
    return Fleetctl(process, operator)


@pytest.fixture(scope="session")
def target(first_shell: OperatorShell) -> Path:
    return first_shell.cwd / "infra" / first_shell.env["TARGET"]


@pytest.fixture(scope="session")
def terraform(process: Processes, first_shell: OperatorShell, target: Path, read_only: bool) -> Terraform:
    return Terraform(process, target, first_shell.env, "../../terraform.tfvars", read_only=read_only)


@pytest.fixture(scope="session")
def read_outputs(terraform: Terraform, workplace: Path, read_only: bool) -> Callable[[], Outputs]:
    given = workplace / OUTPUTS
    if given.exists():
        return lambda: Outputs.read(json.loads(given.read_text()))
    # nothing changes in a read-only run: that Terraform's serial stayed the same is part of what it proves
    return functools.cache(terraform.outputs) if read_only else terraform.outputs


@pytest.fixture(scope="session")
def connections(recorder: Recorder) -> Iterator[Connections]:
    with Connections(recorder) as connections:
        yield connections


@pytest.fixture
def cluster(read_outputs: Callable[[], Outputs], connections: Connections, process: Processes) -> Cluster:
    """As it is when a scenario first asks: machines are added and made again."""
    return Cluster(read_outputs, connections, process)


@pytest.fixture(scope="session", autouse=True)
def changes_nothing(request: pytest.FixtureRequest, read_only: bool) -> Iterator[None]:
    """Takes a fingerprint of the cluster before and after a read-only run; the verdict compares the two."""
    if not read_only:
        yield
        return
    needed = ("recorder", "connections", "read_outputs", "terraform", "workplace", "watch")
    recorder, connections, read_outputs, terraform, workplace, watch = map(request.getfixturevalue, needed)
    state = None if (workplace / OUTPUTS).exists() else terraform
    machines, answering = connections.machines(read_outputs()), watch.first.answering
    recorder.emit("fingerprint", facts=fingerprint(machines, answering, state))
    yield
    recorder.emit("fingerprint", facts=fingerprint(machines, answering, state))


@pytest.fixture(scope="session")
def watch(
    recorder: Recorder,
    first_shell: OperatorShell,
    workplace: Path,
    terraform: Terraform,
    read_outputs: Callable[[], Outputs],
    connections: Connections,
    process: Processes,
) -> Iterator[Watch]:
    folder = Path(os.environ["PLATFORM_FOLDER"])
    of_outputs = (workplace / OUTPUTS).exists()
    plan = None if of_outputs else lambda: terraform.second_plan().changed
    progress = Progress(first_shell.typed, builds=builds(folder, workplace))

    def looker() -> Looker:
        cluster = Cluster(read_outputs, connections, process)
        return looker_of(cluster, progress, first_shell, process, None if of_outputs else workplace.name, plan)

    watch = Watch(looker, recorder, folder, since=last_green(workplace))
    yield watch
    watch.end()


@pytest.fixture
def answering(watch: Watch) -> Callable[[], Collection[str]]:
    """Gives the machines that were not silent when all were last looked at."""
    return lambda: watch.newest.answering


@pytest.fixture(autouse=True)
def settles(request: pytest.FixtureRequest) -> Iterator[None]:
    """After a scenario that changes something all rules hold, when what it took away is back; fleet's units are given
    back where it failed, for a cluster that stays, and what follows is executed where all is well by then."""
    choosing = request.config.pluginmanager.get_plugin("choosing")
    if choosing is None or not choosing.changes(request.node):
        yield
        return
    needed = ("watch", "terraform", "process", "first_shell", "recorder")
    watch, terraform, process, shell, recorder = map(request.getfixturevalue, needed)
    watch.fresh = True
    before = watch.last if terraform.has_state() else None
    try:
        yield
        if not terraform.has_state():
            return
        if not choosing.broken_by:
            watch.settled()
        elif not choosing.is_over():
            restore(watch.anew(), Fleetctl(process, shell), shell.cwd, recorder, before)
            if choosing.may_go_on(request.node) and watch.is_well(WELL_AGAIN):
                choosing.broken_by = ""
    finally:
        watch.fresh = False


@pytest.fixture
def variables(operator: OperatorShell) -> Callable[[], Mapping[str, Any]]:
    """Reads terraform.tfvars as it is at the moment of the call."""
    return lambda: tfvars.read((operator.cwd / tfvars.FILE).read_text())


@pytest.fixture
def registration(variables: Callable[[], Mapping[str, Any]], cluster: Cluster, recorder: Recorder) -> Registration:
    url = variables()["discovery_url"]
    try:
        return cluster.registration(url)
    except NothingApplied:
        return Registration.at(url, recorder)


# -- what changes, and the requests all the while ----------------------------------------------------------------------


@pytest.fixture
def traffic() -> Iterator[dict[str, Traffic]]:
    """Site -> the requests to it that run; they end with the scenario."""
    streams: dict[str, Traffic] = {}
    yield streams
    with contextlib.ExitStack() as every:  # also when one raises
        for stream in streams.values():
            every.callback(stream.stop)


@pytest.fixture
def start_traffic(traffic: dict[str, Traffic], cluster: Cluster, recorder: Recorder) -> Callable[[str, str, int], None]:
    """Starts requests to a site: at an address, or ("") at the one that its name leads to."""

    def start(site: str, address: str, rate: int) -> None:
        domain = cluster.outputs.sites[site]
        where = (lambda: address) if address else remembered(lambda: cluster.name_server.lookup(domain), TRUSTED_FOR)

        ask = request_to(site, domain, where)

        def deployed() -> str:
            return cluster.contents.deployed_last(site).version

        traffic[site] = Traffic(site, ask, deployed(), rate, recorder, deployed)
        traffic[site].start()

    return start


@pytest.fixture
def change(traffic: dict[str, Traffic], watch: Watch) -> Callable[[str], None]:
    """Tells all who look that something changes now: requests that run are counted from then on."""

    def changed(what: str) -> None:
        watch.changed()
        for stream in traffic.values():
            stream.changed(what)

    return changed


@pytest.fixture(scope="session")
def power(process: Processes, first_shell: OperatorShell, target: Path, workplace: Path, read_only: bool) -> Power:
    return Power(process, target_data(target)["power"], workplace.name, first_shell.cwd, read_only=read_only)


# A step found the platform wrong, and does not know by which rule
FAILED = pytest.StashKey[BaseException]()


def pytest_bdd_step_error(request: pytest.FixtureRequest, exception: BaseException) -> None:
    if isinstance(exception, PlatformWrong) and not isinstance(exception, RuleBroken):
        request.node.stash[FAILED] = exception


@pytest.fixture
def put_back(
    request: pytest.FixtureRequest, watch: Watch, recorder: Recorder, cluster: Cluster
) -> Iterator[contextlib.ExitStack]:
    """What puts back what a scenario took away, however it ends: each is called once more when the scenario did it.
    Where it failed the cause is looked for before that, for it may be gone behind it."""
    with contextlib.ExitStack() as every:
        yield every
        if FAILED in request.node.stash:
            try:
                _look_for_the_cause(watch, cluster.machines)
            except HarnessError as unknown:
                recorder.emit("note", text=f"why it failed is not known: {unknown}")
    watch.changed()


def _look_for_the_cause(watch: Watch, machines: Machines) -> None:
    """A machine that was taken away is counted, for what follows from it to be told as that; itself it is none."""
    lost = [name for name in machines.addresses if name not in machines.names]
    for name in lost:
        machines.regain(name)
    with watch.making([("machine-answers", f"machine {name}") for name in lost]):
        watch.diagnose(LOOKS_WITHIN)


@pytest.fixture
def another_shell(
    operator: OperatorShell, process: Processes, workplace: Path, put_back: contextlib.ExitStack
) -> Callable[..., OperatorShell]:
    """Opens a second shell of the operator, which closes with the scenario; variables can be left out. The agent of the
    first one is not its own."""

    def opened(*without: str) -> OperatorShell:
        environment = {n: value for n, value in operator.env.items() if n not in ("SSH_AGENT_PID", *without)}
        shell = OperatorShell.open(process, workplace / SECOND_SHELL, operator.cwd, environment)
        put_back.callback(shell.close)
        return shell

    return opened


def _taking(
    way: Callable[[str], None],
    back: Callable[[str], None],
    what: str,
    cluster: Cluster,
    change: Callable[[str], None],
    put_back: contextlib.ExitStack,
) -> Callable[[str], None]:
    """Takes a machine away in one way, which is not counted until it is back."""

    def taken(name: str) -> None:
        change(f"{name} {what}")
        put_back.callback(back, name)
        way(name)
        cluster.machines.lose(name)

    return taken


@pytest.fixture
def lose(
    power: Power, cluster: Cluster, change: Callable[[str], None], put_back: contextlib.ExitStack
) -> Callable[[str], None]:
    """Takes a machine away, as a power cut does."""
    return _taking(power.off, power.on, "is lost", cluster, change, put_back)


@pytest.fixture
def freeze(
    power: Power, cluster: Cluster, change: Callable[[str], None], put_back: contextlib.ExitStack
) -> Callable[[str], None]:
    """Makes a machine stand still."""
    return _taking(power.freeze, power.thaw, "freezes", cluster, change, put_back)


@pytest.fixture
def faults(
    cluster: Cluster,
    operator: OperatorShell,
    process: Processes,
    workplace: Path,
    change: Callable[[str], None],
    put_back: contextlib.ExitStack,
    watch: Watch,
) -> Injections:
    """Faults of the drills, each until the scenario undoes it, or ends."""
    if not put_back.enter_context(seeding_lock(workplace)):
        raise Misconfigured("a drill is under way on this cluster")
    return Injections(Seeding(workplace, cluster, operator, process), change, put_back, watch.making)


@pytest.fixture
def making(watch: Watch) -> Making:
    """Tells who looks what a scenario breaks on purpose."""
    return watch.making


@pytest.fixture
def begin_deployment(
    process: Processes, operator: OperatorShell, cluster: Cluster, workplace: Path, put_back: contextlib.ExitStack
) -> Callable[[str], DeploymentUnderWay]:
    """Begins to deploy a site; what still runs when the scenario ends is killed."""

    def begin(site: str) -> DeploymentUnderWay:
        under_way = DeploymentUnderWay(process, operator, cluster.machines, site, workplace / DEPLOYING)
        put_back.callback(under_way.kill)
        return under_way

    return begin


@pytest.fixture
def inject(
    cluster: Cluster, watch: Watch, change: Callable[[str], None], put_back: contextlib.ExitStack
) -> Callable[[str, str], None]:
    """Leaves registrations that no sidekick made, until the scenario ends; no rule is to mind them."""
    numbers = itertools.count()

    def put(service: str, value: str) -> None:
        change(f"a registration says {value}")
        name = f"injected-{next(numbers)}"
        put_back.enter_context(watch.expecting(("registration-is-right", Subject("registration", f"{service}/{name}"))))
        put_back.callback(cluster.services.undo, service, name)
        cluster.services.inject(service, name, value, ttl=math.ceil(300 * patience()))

    return put
