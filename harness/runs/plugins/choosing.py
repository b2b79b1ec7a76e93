"""Which scenarios a run executes: features and lines of them as pytest arguments, what a read-only run leaves out, what
this cluster cannot have, and what stands on a scenario that failed."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Collection, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pytest_bdd.parser import Scenario
from pytest_bdd.scenario import scenario_wrapper_template_registry

from harness import files
from harness.drivers.shell import OperatorShell
from harness.drivers.terraform import Outputs, target_data
from harness.errors import HarnessError
from harness.model import tfvars
from harness.record.log import Recorder
from harness.reports.runbook import Feature, feature
from harness.reports.runbook import Scenario as Claim
from harness.runs.faults import NETWORK, Means, read_faults
from harness.runs.workplace import EXAMPLE, HANDED_OVER, MACHINES_AT_MOST, OUTPUTS, SHELL_STATE, builds
from harness.seams.process import Processes
from harness.text import LEFT_OUT, SLOW, did_you_mean


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--read-only", action="store_true", help="run no scenario that changes something, and no such call"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[CHOSEN], config.args = chosen_features(config.args, config.rootpath / "features")
    if os.environ.get("PLATFORM_FOLDER"):
        config.pluginmanager.register(Choosing(), "choosing")


# -- a feature, or a line of it, as something to choose ---------------------------------------------------------------

CHOSEN = pytest.StashKey[list[tuple[Path, int]]]()
UNPLANNED = pytest.StashKey[list[tuple[Feature, Claim]]]()


def chosen_features(arguments: list[str], features: Path) -> tuple[list[tuple[Path, int]], list[str]]:
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
            known = [file.name for file in sorted(features.glob("*.feature"))]
            raise pytest.UsageError(
                f"there is no {found[1]}: {did_you_mean(path.name, known)}features are {', '.join(known)}"
            )
        chosen.append((path, int(found[2] or 0)))
    return chosen, [*others, str(features)] if chosen else others


@pytest.hookimpl(tryfirst=True)  # other plugins leave something out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if any(item.function not in scenario_wrapper_template_registry for item in items if hasattr(item, "function")):
        return  # the harness's own tests
    named = any("::" in argument for argument in config.args)  # what was chosen by a name of pytest's is all there is
    config.stash[UNPLANNED] = [] if named else unplanned(items, config.rootpath / "features")
    chosen = config.stash[CHOSEN]
    if chosen:
        kept = [item for item in items if any(_is_at(scenario_of(item), path, line) for path, line in chosen)]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


def unplanned(items: Collection[pytest.Item], folder: Path) -> list[tuple[Feature, Claim]]:
    """The scenarios that stand in the features' files, and that pytest did not collect. Raises UsageError for a file
    that cannot be read as features are."""
    planned = (scenario_of(item) for item in items)
    known = Counter((Path(it.feature.filename).resolve(), it.line_number) for it in planned)
    missed = []
    for path in sorted({*folder.resolve().glob("*.feature"), *(path for path, _ in known)}):
        try:
            found = feature(f"{path.parent.name}/{path.name}", path.read_text())
        except (HarnessError, OSError, ValueError) as refused:
            raise pytest.UsageError(str(refused)) from refused
        for claim in found.scenarios:
            known[path, claim.line] -= 1  # rows of an outline have one line
            missed += [(found, claim)] if known[path, claim.line] < 0 else []
    return missed


def chooses_nothing(config: pytest.Config, items: Collection[pytest.Item]) -> str:
    """Which of the features and lines that were chosen are in none of these scenarios, in words; "" where none is."""
    missed = [it for it in config.stash[CHOSEN] if not any(_is_at(scenario_of(item), *it) for item in items)]
    named = [(line, os.path.relpath(path, config.rootpath)) for path, line in missed]
    return ", ".join(
        f"line {line} of {name} is in no scenario" if line else f"no scenario of {name} is chosen"
        for line, name in named
    )


def _is_at(scenario: Scenario, path: Path, line: int) -> bool:
    last = max([scenario.line_number, *(step.line_number for step in scenario.steps)])
    return Path(scenario.feature.filename) == path and (not line or scenario.line_number <= line <= last)


# -- what is left out --------------------------------------------------------------------------------------------------


class Choosing:
    """Leaves out, with the reason, what this run is not to execute or cannot."""

    def __init__(self) -> None:
        self.broken_by = ""  # title of the scenario that changed something and failed: what follows stands on it
        self.interrupted = False
        self._left_out: list[pytest.Item] = []  # by a selection, in a run that builds its cluster

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Generator[None]:
        """A run that builds its cluster does that whatever was chosen, and says what it leaves out."""
        every = list(items)
        yield
        if not builds_here() or len(items) == len(every):
            return
        if not items:
            raise pytest.UsageError(chooses_nothing(every[0].config, ()) or "it chooses no scenario")
        self._left_out = [item for item in every if item not in items and "builds" not in tags_of(item)]
        items[:] = every

    def pytest_keyboard_interrupt(self) -> None:
        """What it leaves is not waited for."""
        self.interrupted, self.broken_by = True, self.broken_by or "the interruption"

    def is_over(self) -> bool:
        """Whether the cluster is about to be removed: it was being built, and somebody interrupted that."""
        return self.interrupted and builds_here()

    def may_go_on(self, item: pytest.Item) -> bool:
        """Whether it is this scenario that failed, and what follows it needs nothing but a cluster that is well: none
        that builds it, and no interruption."""
        return not self.interrupted and self.broken_by == scenario_of(item).name and "builds" not in tags_of(item)

    def leaves_out(self, nodeid: str) -> bool:
        """Whether something else was chosen."""
        return any(item.nodeid == nodeid for item in self._left_out)

    def changes(self, item: pytest.Item) -> bool:
        """Whether its scenario changes something."""
        return changes_something(item)

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if self.broken_by:
            pytest.skip(f'stands on "{self.broken_by}", which failed')
        if item in self._left_out:
            slow = item.config.getoption("-m") == "not slow" and "slow" in tags_of(item)
            pytest.skip(SLOW if slow else LEFT_OUT)
        if item.config.getoption("--read-only") and changes_something(item):
            pytest.skip("changes something, and this run changes nothing")
        reason = missing(item)
        if reason:
            pytest.skip(reason)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        # what the teardown reports is over by now: a put-back that failed breaks what follows, too
        if report.failed and changes_something(item):
            self.broken_by = self.broken_by or scenario_of(item).name
        return report


def missing(item: pytest.Item) -> str:
    """Why this run cannot execute a scenario; "" when it can."""
    made_by, tags = os.environ.get("PLATFORM_WORKPLACE", ""), tags_of(item)
    if "builds" in tags and not builds_here():
        return "builds the cluster, and this one stands"
    faults = {name for step in scenario_of(item).steps for name in FAULT.findall(step.name)}
    if not faults and not any(tag.startswith("requires_") for tag in tags):
        return ""
    it = _known(Path(made_by))
    lacks = {
        "requires_state": not it.has_state
        and "needs the operator's variables and Terraform's state, and this run knows the target's outputs only",
        "requires_three_machines": it.machines < 3
        and f"needs 3 machines or more, to lose one, and there are {it.machines}",
        "requires_name_server": (not it.name_server and "needs a name server, and this cluster's entry point is fixed")
        or (not shutil.which("dig") and "needs dig: install bind9-dnsutils"),
        "requires_services_on_a_machine": not it.services_on_a_machine
        and "needs the registry and the discovery service on a machine, and this cluster's run beside it",
        "requires_one_more": it.machines >= it.most and "needs room for one machine more, and this is the most",
        "requires_one_added": it.machines <= it.made_with and "needs a machine that was added, and none was",
        "requires_power": not it.target.get("power")
        and "needs machines that can be switched off, and this target's cannot",
        "requires_remaking": "gone" not in it.target.get("power", ())
        and "needs a plan that makes a lost machine again, and on this target no plan notices that one is lost",
    }
    reason = next((reason for tag, reason in lacks.items() if tag in tags and reason), "")
    return reason or _cannot_be_broken(Path(made_by), faults, cuts="requires_network_cuts" in tags)


# A step that breaks something
FAULT = re.compile(r'fault "([^"]+)" is injected')


def _cannot_be_broken(workplace: Path, faults: Collection[str], *, cuts: bool) -> str:
    """Why a fault cannot be seeded on this cluster, or the network of its machines cannot be cut; "" where all can."""
    if (workplace / OUTPUTS).exists():
        return "needs to reach the machines from outside them" if faults or cuts else ""
    nowhere = Recorder(Path(os.devnull))
    process = Processes(nowhere)
    shell = OperatorShell(process, workplace / SHELL_STATE)
    means = Means(workplace, shell, process)
    lacking = {f"fault {it.name}": means.lack(it) for it in read_faults() if it.name in faults}
    if cuts:
        lacking["a network that can be cut"] = means.lack_switch(f"{NETWORK}coreos-0", "cut")
    nowhere.close()
    return next((f"needs {what}, and {why}" for what, why in lacking.items() if why), "")


@dataclass(frozen=True)
class Known:
    """What a workplace says of its cluster: number of machines now, when it was made and at most, its name server, what
    target.json says, whether its backing services run on a machine, and whether there is more than the target's
    outputs."""

    machines: int
    made_with: int
    most: int
    name_server: str
    target: dict[str, Any]
    services_on_a_machine: bool
    has_state: bool


def _known(workplace: Path) -> Known:
    outputs = workplace / OUTPUTS
    if outputs.exists():
        given = Outputs.read(files.read_object(outputs))
        number = len(given.machines)
        return Known(
            number, number, MACHINES_AT_MOST, given.name_server, {}, services_on_a_machine=False, has_state=False
        )
    nowhere = Recorder(Path(os.devnull))
    shell = OperatorShell(Processes(nowhere), workplace / SHELL_STATE)
    nowhere.close()  # nothing is typed
    target = shell.cwd / "infra" / shell.env["TARGET"]
    data = target_data(target)
    example, chosen = (shell.cwd / name for name in (EXAMPLE, tfvars.FILE))
    made_with = _machines(example)
    handed_over = files.read_object(target / HANDED_OVER)
    listed = _listed(target, data["a_machine_for_each"]) if "a_machine_for_each" in data else None
    return Known(
        _machines(chosen) if chosen.exists() else made_with,
        made_with,
        MACHINES_AT_MOST if listed is None else len(listed),
        handed_over.get("name_server", ""),
        data,
        services_on_a_machine=handed_over.get("image_registry", "").rpartition(":")[0] in (listed or ()),
        has_state=True,
    )


def _machines(file: Path) -> int:
    machines = tfvars.read(file.read_text()).get("machines")
    return machines if isinstance(machines, int) else 1


def _listed(target: Path, variable: str) -> list[str]:
    """What the operator lists in a variable of the target's own."""
    lists = [tfvars.read(file.read_text(), file.name).get(variable) for file in target.glob("*.auto.tfvars")]
    return [text for it in lists if isinstance(it, tfvars.Other) for text in re.findall(r'"([^"]*)"', it.source)]


def scenario_of(item: pytest.Item) -> Scenario:
    """Its scenario; of an outline with the values of its row."""
    assert isinstance(item, pytest.Function)
    row: Any = item.callspec.params.get("_pytest_bdd_example", {}) if hasattr(item, "callspec") else {}
    return scenario_wrapper_template_registry[item.function].render(row)


def tags_of(item: pytest.Item) -> set[str]:
    """Those of the feature, the rule, the scenario and its examples, which pytest-bdd makes marks of only."""
    scenario = scenario_of(item)
    of_rule = scenario.rule.tags if scenario.rule else set()
    of_examples = {mark.name for mark in item.callspec.marks} if hasattr(item, "callspec") else set()
    return scenario.tags | scenario.feature.tags | of_rule | of_examples


def builds_here() -> bool:
    """Whether this run builds the cluster that it is about."""
    return builds(*(Path(os.environ.get(name, "")) for name in ("PLATFORM_FOLDER", "PLATFORM_WORKPLACE")))


def changes_something(item: pytest.Item) -> bool:
    return bool({"mutates", "destructive"} & tags_of(item))
