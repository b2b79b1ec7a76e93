"""The composition root of a run: builds the real drivers, and records what pytest-bdd does.

`bin/platform` starts pytest with PLATFORM_FOLDER set to the run's folder, where the record is, and PLATFORM_WORKPLACE
to that of the run that made the cluster; the drivers take all they know from there.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pytest_bdd.parser import Feature, Scenario, Step
from pytest_bdd.scenario import scenario_wrapper_template_registry

from harness.drivers.contents import Contents
from harness.drivers.etcd import Etcd, Registration
from harness.drivers.fleet import Fleet
from harness.drivers.machines import Machines, open_ports
from harness.drivers.name_server import NameServer
from harness.drivers.power import Power
from harness.drivers.services import Services
from harness.drivers.shell import OperatorShell
from harness.drivers.site import Page, Site
from harness.drivers.terraform import Outputs, Plan, Terraform, target_data
from harness.drivers.traffic import Traffic, remembered
from harness.drivers.units import UnitFile, UnitStates, read_units
from harness.errors import ExitStatus, HarnessError, PlatformWrong
from harness.model import tfvars
from harness.record.log import Recorder, Redactor
from harness.runs.fingerprint import fingerprint
from harness.runs.workplace import EXAMPLE, MACHINES_AT_MOST, OUTPUTS, SHELL_STATE, add_secrets
from harness.seams.http import open_session
from harness.seams.patience import patience
from harness.seams.process import Processes
from harness.seams.wait import Waiter
from harness.text import did_you_mean

ROOT = Path(__file__).parent
# Of a request that is one of many, seconds: to connect and between two bytes, for all of it; and how long the name
# server's answer counts, as its own time to live (5) would let a resolver
TRAFFIC_TIMEOUTS = (1.0, 2.0)
TRAFFIC_WHOLE = 10.0
TRUSTED_FOR = 1.0

pytest_plugins = [
    "steps.operator",
    "steps.discovery",
    "steps.infrastructure",
    "steps.cluster",
    "steps.units",
    "steps.sites",
    "steps.services",
    "steps.machines",
]


# -- the record ------------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--read-only", action="store_true", help="run no scenario that changes something, and no such call"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[CHOSEN], config.args = chosen_features(config.args)
    folder, workplace = os.environ.get("PLATFORM_FOLDER"), os.environ.get("PLATFORM_WORKPLACE")
    if folder and workplace:
        redact = Redactor()
        add_secrets(redact, Path(workplace))
        config.pluginmanager.register(Recording(Recorder(Path(folder) / "events.jsonl", redact)), "recording")


# -- a feature, or a line of it, as something to choose ---------------------------------------------------------------

CHOSEN = pytest.StashKey[list[tuple[Path, int]]]()


def chosen_features(arguments: list[str]) -> tuple[list[tuple[Path, int]], list[str]]:
    """Feature files and lines (0: the whole file) among pytest's arguments, and the arguments with the features' folder
    in their place."""
    chosen, others = [], []
    for argument in arguments:
        found = re.fullmatch(r"(.+\.feature)(?::(\d+))?", argument)
        if found is None:
            others.append(argument)
            continue
        path = Path(found[1]).resolve()
        if not path.is_file():
            known = [file.name for file in sorted((ROOT / "features").glob("*.feature"))]
            raise pytest.UsageError(
                f"there is no {found[1]}: {did_you_mean(path.name, known)}features are {', '.join(known)}"
            )
        chosen.append((path, int(found[2] or 0)))
    return chosen, [*others, str(ROOT / "features")] if chosen else others


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if any(item.function not in scenario_wrapper_template_registry for item in items if hasattr(item, "function")):
        return  # the harness's own tests
    chosen = config.stash[CHOSEN]
    if chosen:
        kept = [item for item in items if any(_is_at(_scenario_of(item), path, line) for path, line in chosen)]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


def _is_at(scenario: Scenario, path: Path, line: int) -> bool:
    last = max([scenario.line_number, *(step.line_number for step in scenario.steps)])
    return Path(scenario.feature.filename) == path and (not line or scenario.line_number <= line <= last)


class Recording:
    """Writes scenarios and steps into the record, as they happen.

    A step is planned, started, ended. One that started and never ended stays interrupted: pytest-bdd calls no hook
    for a step that was skipped, exited or interrupted. pytest's own reports have the last word on a scenario.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.broken_by = ""  # title of the mutating scenario that failed: what follows stands on it
        self._step_started = 0.0
        self._seconds: dict[str, float] = {}
        self._outcome: dict[str, tuple[str, str, dict[str, Any] | None]] = {}
        self._failed_step: BaseException | None = None

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            scenario = _scenario_of(item)
            self.recorder.emit(
                "scenario.planned",
                id=item.nodeid,
                feature=scenario.feature.rel_filename,
                feature_title=scenario.feature.name,
                title=scenario.name,
                line=scenario.line_number,
                tags=sorted(scenario.tags | scenario.feature.tags),
                steps=[
                    {"keyword": step.keyword, "text": step.name, "line": step.line_number} for step in scenario.steps
                ],
            )

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if self.broken_by:
            pytest.skip(f'stands on "{self.broken_by}", which failed')
        if item.config.getoption("--read-only") and _changes_something(item):
            pytest.skip("changes something, and this run changes nothing")
        missing = _missing(item)
        if missing:
            pytest.skip(missing)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        if not self.broken_by:
            self.recorder.emit("scenario.started", id=nodeid)
            self.recorder.within(scenario=nodeid)

    def pytest_bdd_before_step(self, request: pytest.FixtureRequest, scenario: Scenario, step: Step) -> None:
        index = scenario.steps.index(step)
        self._step_started = time.monotonic()
        self.recorder.emit("step.started", id=request.node.nodeid, index=index)
        self.recorder.within(step=index)

    def pytest_bdd_after_step(self, request: pytest.FixtureRequest, scenario: Scenario, step: Step) -> None:
        self._step_ended(request, scenario, step, "passed", None)

    def pytest_bdd_step_error(
        self, request: pytest.FixtureRequest, scenario: Scenario, step: Step, exception: BaseException
    ) -> None:
        self._failed_step = exception
        self._step_ended(request, scenario, step, "failed", exception)
        line = f"{scenario.feature.rel_filename}:{step.line_number}: {step.keyword} {step.name}"
        request.node.add_report_section("call", "Gherkin", line)

    def pytest_bdd_step_func_lookup_error(
        self, request: pytest.FixtureRequest, feature: Feature, scenario: Scenario, step: Step, exception: Exception
    ) -> None:
        self._step_started = time.monotonic()
        self.recorder.emit("step.started", id=request.node.nodeid, index=scenario.steps.index(step))
        self.pytest_bdd_step_error(request, scenario, step, exception)

    def _step_ended(
        self,
        request: pytest.FixtureRequest,
        scenario: Scenario,
        step: Step,
        outcome: str,
        error: BaseException | None,
    ) -> None:
        self.recorder.emit(
            "step.ended",
            id=request.node.nodeid,
            index=scenario.steps.index(step),
            outcome=outcome,
            error=_described(error),
            seconds=round(time.monotonic() - self._step_started, 3),
        )
        self.recorder.within(step=None)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        outcome = {"passed": "passed", "skipped": "not_run", "failed": "failed" if call.when == "call" else "error"}
        before = self._outcome.get(item.nodeid, ("passed", "", None))
        if report.outcome != "passed" and before[0] == "passed":
            raised = call.excinfo.value if call.excinfo else None
            error = _described(raised) if report.failed and raised is not self._failed_step else None
            before = (outcome[report.outcome], str(raised), error)
        self._outcome[item.nodeid] = before
        # what the teardown reports is over by now: a put-back that failed breaks what follows, too
        if report.failed and _changes_something(item):
            self.broken_by = self.broken_by or _scenario_of(item).name
        self._seconds[item.nodeid] = self._seconds.get(item.nodeid, 0.0) + report.duration
        return report

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        outcome, reason, error = self._outcome.get(nodeid, ("error", "pytest gave no report", None))
        self.recorder.emit(
            "scenario.ended",
            id=nodeid,
            outcome=outcome,
            reason=reason,
            error=error,
            seconds=round(self._seconds.get(nodeid, 0.0), 3),
        )
        self.recorder.within(scenario=None, step=None)


def _missing(item: pytest.Item) -> str:
    """Why this run cannot execute a scenario; "" when it can."""
    scenario, made_by = _scenario_of(item), os.environ.get("PLATFORM_WORKPLACE", "")
    tags = scenario.tags | scenario.feature.tags
    if "builds" in tags and made_by != os.environ.get("PLATFORM_FOLDER", ""):
        return "builds the cluster, and this one stands"
    if not any(tag.startswith("requires_") for tag in tags):
        return ""
    machines, name_server, can_switch, has_state = _known(Path(made_by))
    lacks = {
        "requires_state": not has_state
        and "needs the operator's variables and Terraform's state, and this run knows the target's outputs only",
        "requires_three_machines": machines < 3 and f"needs 3 machines or more, to lose one, and there are {machines}",
        "requires_name_server": (not name_server and "needs a name server, and this cluster's entry point is fixed")
        or (not shutil.which("dig") and "needs dig: install bind9-dnsutils"),
        "requires_one_more": machines >= MACHINES_AT_MOST and "needs room for one machine more, and this is the most",
        "requires_power": not can_switch and "needs machines that can be switched off, and this target's cannot",
    }
    return next((reason for tag, reason in lacks.items() if tag in tags and reason), "")


def _known(workplace: Path) -> tuple[int, str, bool, bool]:
    """What a workplace says of its cluster: number of machines, name server, whether machines can be switched off, and
    whether there is more than the target's outputs."""
    outputs = workplace / OUTPUTS
    if outputs.exists():
        said = Outputs.read(json.loads(outputs.read_text()))
        return len(said.machines), said.name_server, False, False
    nowhere = Recorder(Path(os.devnull))
    shell = OperatorShell(Processes(nowhere), workplace / SHELL_STATE)
    nowhere.close()  # nothing is typed
    target = shell.cwd / "infra" / shell.env["TARGET"]
    example, chosen = (shell.cwd / name for name in (EXAMPLE, tfvars.FILE))
    variables = tfvars.read((chosen if chosen.exists() else example).read_text())
    handed_over = json.loads((target / "run.auto.tfvars.json").read_text())
    return int(variables.get("machines", 1)), handed_over.get("name_server", ""), "power" in target_data(target), True


def _scenario_of(item: pytest.Item) -> Scenario:
    assert isinstance(item, pytest.Function)
    template = scenario_wrapper_template_registry[item.function]
    return template.render({})


def _changes_something(item: pytest.Item) -> bool:
    scenario = _scenario_of(item)
    return bool({"mutates", "destructive"} & (scenario.tags | scenario.feature.tags))


def _described(error: BaseException | None) -> dict[str, Any] | None:
    """An error as the record keeps it: its kind, the exit status that goes with it, and one line for each question."""
    if error is None:
        return None
    status = ExitStatus.INTERNAL_ERROR
    if isinstance(error, HarnessError):
        status = error.status
    elif isinstance(error, AssertionError):
        status = ExitStatus.PLATFORM_WRONG
    wrong = error if isinstance(error, PlatformWrong) else PlatformWrong("")
    return {
        "kind": type(error).__name__,
        "status": int(status),
        "message": str(error),
        "expected": wrong.expected,
        "seen": wrong.seen,
        "where": wrong.where,
        "paste": wrong.paste,
    }


# -- the drivers: connections last through the run, results never do --------------------------------------------------


@pytest.fixture(scope="session")
def folder() -> Path:
    named = os.environ.get("PLATFORM_FOLDER")
    if not named:
        raise pytest.UsageError("the features run through `make acceptance` (or bin/platform acceptance)")
    return Path(named)


@pytest.fixture(scope="session")
def recorder(request: pytest.FixtureRequest, folder: Path) -> Recorder:
    recording = request.config.pluginmanager.get_plugin("recording")
    assert isinstance(recording, Recording)
    return recording.recorder


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
def workplace(folder: Path) -> Path:
    return Path(os.environ["PLATFORM_WORKPLACE"])


@pytest.fixture(scope="session")
def operator(process: Processes, workplace: Path, read_only: bool) -> OperatorShell:
    shell = OperatorShell(process, workplace / SHELL_STATE, read_only=read_only)
    # the agent of this run: the one that the cluster was kept with may be gone
    shell.own = {"SSH_AUTH_SOCK": os.environ["SSH_AUTH_SOCK"]} if "SSH_AUTH_SOCK" in os.environ else {}
    return shell


@pytest.fixture(scope="session")
def target(operator: OperatorShell) -> Path:
    return operator.cwd / "infra" / operator.env["TARGET"]


@pytest.fixture(scope="session")
def terraform(process: Processes, operator: OperatorShell, target: Path, read_only: bool) -> Terraform:
    return Terraform(process, target, operator.env, "../../terraform.tfvars", read_only=read_only)


@pytest.fixture(scope="session")
def read_outputs(terraform: Terraform, workplace: Path, read_only: bool) -> Callable[[], Outputs]:
    given = workplace / OUTPUTS
    if given.exists():
        return lambda: Outputs.read(json.loads(given.read_text()))
    # nothing changes in a read-only run: that Terraform's serial stayed the same is part of what it proves
    return functools.cache(terraform.outputs) if read_only else terraform.outputs


@pytest.fixture
def outputs(read_outputs: Callable[[], Outputs]) -> Outputs:
    return read_outputs()


@pytest.fixture(scope="session")
def connections() -> Iterator[list[tuple[Outputs, Machines]]]:
    """The kept SSH connections, and the outputs that they were made from."""
    kept: list[tuple[Outputs, Machines]] = []
    yield kept
    for _, machines in kept:
        machines.close()


@pytest.fixture(scope="session")
def connect(recorder: Recorder, connections: list[tuple[Outputs, Machines]]) -> Callable[[Outputs], Machines]:
    def connect(outputs: Outputs) -> Machines:
        for made_from, kept in connections:
            if made_from == outputs:
                return kept
        connections.append((outputs, Machines(outputs, recorder)))
        return connections[-1][1]

    return connect


@pytest.fixture
def machines(outputs: Outputs, connect: Callable[[Outputs], Machines]) -> Machines:
    return connect(outputs)


@pytest.fixture(scope="session", autouse=True)
def changes_nothing(request: pytest.FixtureRequest, read_only: bool) -> Iterator[None]:
    """What must be the same behind a run that changes nothing, taken before and after it; the verdict compares."""
    if not read_only:
        yield
        return
    recorder, connect, terraform = (request.getfixturevalue(name) for name in ("recorder", "connect", "terraform"))
    read_outputs, workplace = (request.getfixturevalue(name) for name in ("read_outputs", "workplace"))
    state = None if (workplace / OUTPUTS).exists() else terraform
    recorder.emit("fingerprint", facts=fingerprint(connect(read_outputs()), state))
    yield
    recorder.emit("fingerprint", facts=fingerprint(connect(read_outputs()), state))


@pytest.fixture
def etcd(machines: Machines) -> Etcd:
    return Etcd(machines)


@pytest.fixture
def fleet(machines: Machines) -> Fleet:
    return Fleet(machines)


@pytest.fixture
def contents(machines: Machines) -> Contents:
    return Contents(machines)


@pytest.fixture
def variables(operator: OperatorShell) -> Callable[[], Mapping[str, Any]]:
    """Reads terraform.tfvars as it is at the moment of the call."""
    return lambda: tfvars.read((operator.cwd / tfvars.FILE).read_text())


@pytest.fixture
def registration(variables: Callable[[], Mapping[str, Any]], recorder: Recorder) -> Registration:
    return Registration.at(variables()["discovery_url"], recorder)


@pytest.fixture
def read_plan(terraform: Terraform, target: Path) -> Callable[[str], Plan]:
    return lambda plan: Plan.read(terraform.show_plan(plan), target_data(target))


@pytest.fixture
def plan_again(terraform: Terraform, target: Path) -> Callable[[], Plan]:
    return lambda: Plan.read(terraform.plan_again(), target_data(target))


@pytest.fixture
def ports_open_outside(machines: Machines) -> Callable[[list[int]], dict[str, list[int]]]:
    return lambda ports: open_ports(machines.addresses, ports)


@pytest.fixture
def read_unit_files(operator: OperatorShell) -> Callable[..., list[UnitFile]]:
    return lambda *folders: read_units(*(operator.cwd / folder for folder in folders))


@pytest.fixture
def unit_files(read_unit_files: Callable[..., list[UnitFile]]) -> list[UnitFile]:
    return read_unit_files("units", "units/app")


@pytest.fixture
def unit_states(fleet: Fleet, machines: Machines, unit_files: list[UnitFile]) -> UnitStates:
    return UnitStates(fleet, machines, [file.name for file in unit_files])


@pytest.fixture
def sites(outputs: Outputs, recorder: Recorder) -> dict[str, Site]:
    session = open_session(outputs.entry_point, outputs.sites.values(), recorder)
    return {name: Site(name, domain, session) for name, domain in outputs.sites.items()}


@pytest.fixture
def ask_entry_point(outputs: Outputs, recorder: Recorder) -> Callable[[str], Page]:
    return lambda name: Site(name, name, open_session(outputs.entry_point, [name], recorder)).fetch("/")


@pytest.fixture
def differences(operator: OperatorShell) -> Callable[[Site, str], list[str]]:
    return lambda site, folder: site.differences(operator.cwd / folder)


@pytest.fixture
def files_missing(operator: OperatorShell, contents: Contents) -> Callable[[str, str], list[str]]:
    return lambda source, place: contents.missing(operator.cwd / source, place)


# -- what changes, and the requests all the while ----------------------------------------------------------------------


@pytest.fixture
def services(machines: Machines) -> Services:
    return Services(machines)


@pytest.fixture
def name_server(outputs: Outputs, process: Processes) -> NameServer:
    return NameServer(outputs.name_server, process)


@pytest.fixture
def site_at(outputs: Outputs, recorder: Recorder) -> Callable[[str, str], Site]:
    """A site, asked at an address that is not the entry point's."""
    return lambda site, address: Site(
        site, outputs.sites[site], open_session(address, outputs.sites.values(), recorder)
    )


@pytest.fixture
def traffic() -> Iterator[dict[str, Traffic]]:
    """Site -> the requests to it that run; they end with the scenario."""
    streams: dict[str, Traffic] = {}
    yield streams
    with contextlib.ExitStack() as every:  # also when one raises
        for stream in streams.values():
            every.callback(stream.stop)


@pytest.fixture
def start_traffic(
    traffic: dict[str, Traffic], outputs: Outputs, contents: Contents, recorder: Recorder, name_server: NameServer
) -> Callable[[str, str, int], None]:
    """Starts requests to a site: at an address, or ("") at the one that its name leads to."""

    def start(site: str, address: str, rate: int) -> None:
        domain = outputs.sites[site]
        where = (lambda: address) if address else remembered(lambda: name_server.lookup(domain), TRUSTED_FOR)

        def ask() -> Page:
            # a session of its own for each: requests' own is for one thread
            session = open_session(where(), [domain], None, timeouts=TRAFFIC_TIMEOUTS, whole=TRAFFIC_WHOLE)
            return Site(site, domain, session).fetch("/version.txt")

        traffic[site] = Traffic(site, ask, contents.deployed_last(site).version, rate, recorder)
        traffic[site].start()

    return start


@pytest.fixture
def change(traffic: dict[str, Traffic]) -> Callable[[str], None]:
    """Tells the requests that run that something changes now: from then on they are counted."""

    def changed(what: str) -> None:
        for stream in traffic.values():
            stream.changed(what)

    return changed


@pytest.fixture(scope="session")
def power(process: Processes, target: Path, workplace: Path, read_only: bool) -> Power:
    return Power(process, target_data(target)["power"], workplace.name, read_only=read_only)


@pytest.fixture
def put_back() -> Iterator[contextlib.ExitStack]:
    """What puts back what a scenario took away, however it ends: each is called once more when the scenario did it."""
    with contextlib.ExitStack() as every:
        yield every


@pytest.fixture
def lose(
    power: Power, machines: Machines, change: Callable[[str], None], put_back: contextlib.ExitStack
) -> Callable[[str], None]:
    """Takes a machine away, as a power cut does."""

    def lost(name: str) -> None:
        change(f"{name} is lost")
        put_back.callback(power.on, name)
        power.off(name)
        machines.lose(name)

    return lost


@pytest.fixture
def plant(services: Services, change: Callable[[str], None]) -> Iterator[Callable[[str, str], None]]:
    """Leaves registrations that no sidekick made, until the scenario ends."""
    planted: list[tuple[str, str]] = []

    def put(service: str, value: str) -> None:
        change(f"a registration says {value}")
        planted.append((service, f"planted-{len(planted)}"))
        services.plant(*planted[-1], value, ttl=math.ceil(300 * patience()))

    yield put
    with contextlib.ExitStack() as every:
        for service, name in planted:
            every.callback(services.uproot, service, name)
