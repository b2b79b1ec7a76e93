"""What to check is chosen in pytest's own words, or by a feature file or a line of it: what conftest.py makes of that.

What pytest then collects is tried for real, on the features of this checkout; nothing of them is executed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pytest_bdd.parser import FeatureParser, Scenario

from harness.drivers.terraform import Outputs
from harness.runs.plugins import choosing
from tests.places import as_printed

ROOT = Path(__file__).resolve().parent.parent.parent.parent
FEATURES = sorted((ROOT / "features").glob("*.feature"))
SITE = ROOT / "features/08_site.feature"
DISCOVERY = ROOT / "features/02_discovery.feature"
# runs pytest once for each case; gives status, file and line of each scenario that is left, and what was said
COLLECT = """
import contextlib, io, json, sys
import pytest
from pytest_bdd.scenario import scenario_wrapper_template_registry as templates

class Spy:
    def __init__(self):
        self.left = []

    def pytest_collection_finish(self, session):
        found = [templates[item.function].render({}) for item in session.items]
        self.left = [[scenario.feature.filename, scenario.line_number] for scenario in found]

def collect(arguments):
    spy, said = Spy(), io.StringIO()
    # plain: modules that the case before has imported cannot be rewritten
    options = ["-p", "no:cacheprovider", "--assert=plain", "--capture=no", "--collect-only", "-q"]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = pytest.main([*options, "--rootdir", ".", *arguments], [spy])
    return int(status), spy.left, said.getvalue()

print(json.dumps([collect(case) for case in json.loads(sys.argv[1])]))
"""


@pytest.fixture(scope="module")
def root() -> Any:
    """The plugin."""
    return choosing


def scenarios(path: Path) -> list[Scenario]:
    feature = FeatureParser(str(ROOT), str(path.relative_to(ROOT))).parse()
    return [template.render({}) for template in feature.scenarios.values()]


def all_of(*paths: Path) -> list[tuple[Path, int]]:
    """File and line of every scenario of these features."""
    return [(path, scenario.line_number) for path in paths for scenario in scenarios(path)]


# -- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "nearest"),
    [
        ("features/08_sites.feature", "did you mean 08_site.feature? "),
        ("features/08_sites.feature:7", "did you mean 08_site.feature? "),
        ("08_site.feature", "did you mean 08_site.feature? "),
        ("/nowhere/contents.feature", "did you mean 07_contents.feature? "),
        ("features/08_site.feature/08_site.feature", "did you mean 08_site.feature? "),
    ],
)
def test_feature_that_is_not_there_gets_the_nearest_one(
    root: Any, monkeypatch: pytest.MonkeyPatch, argument: str, nearest: str
) -> None:
    monkeypatch.chdir(ROOT)

    with pytest.raises(pytest.UsageError) as refused:
        root.chosen_features(["-x", argument], ROOT / "features")

    said, name = str(refused.value), argument.partition(":")[0]
    assert said.startswith(f"there is no {name}: {nearest}features are {FEATURES[0].name}, ")
    assert "\n" not in said and SITE.name in said


def test_folder_that_is_named_as_a_feature_is_none(root: Any, tmp_path: Path) -> None:
    (tmp_path / "some.feature").mkdir()

    with pytest.raises(pytest.UsageError, match=r"there is no .*some\.feature"):
        root.chosen_features([str(tmp_path / "some.feature")], ROOT / "features")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["tests"],
        ["features", "-m", "site"],
        ["features/test_runbook.py::test_the_blog_is_in_order"],
        ["features/08_site.feature:x"],
        ["features/08_site.feature::7"],
        ["features/08_site.features"],
        [".feature"],
    ],
)
def test_what_names_no_feature_is_left_to_pytest(root: Any, arguments: list[str]) -> None:
    assert root.chosen_features(arguments, ROOT / "features") == ([], arguments)


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        (["features/08_site.feature"], [(SITE, 0)]),
        ([str(SITE)], [(SITE, 0)]),
        (["./features/../features/08_site.feature:7"], [(SITE, 7)]),
        (["features/08_site.feature:0"], [(SITE, 0)]),
        (["features/08_site.feature:7", "features/02_discovery.feature"], [(SITE, 7), (DISCOVERY, 0)]),
    ],
)
def test_feature_is_chosen_with_its_line_and_stands_for_its_folder(
    root: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str], chosen: list[tuple[Path, int]]
) -> None:
    monkeypatch.chdir(ROOT)

    assert root.chosen_features(arguments, ROOT / "features") == (chosen, [str(ROOT / "features")])


def test_other_arguments_stay_beside_a_feature(root: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)

    found, others = root.chosen_features(["features", "features/08_site.feature", "tests"], ROOT / "features")
    assert (found, others) == ([(SITE, 0)], ["features", "tests", str(ROOT / "features")])


# -- lines -----------------------------------------------------------------------------------------------------------

OF_SCENARIO = re.compile(r"\s+(Scenario: (?P<title>.*)|(Given|When|Then|And|But) .*)")


@pytest.mark.parametrize("path", FEATURES, ids=lambda path: path.stem)
def test_line_chooses_the_scenario_that_it_belongs_to(root: Any, path: Path) -> None:
    """Its title and its steps; tags, blank lines and the feature's head belong to none."""
    known = scenarios(path)
    at = ""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        found = OF_SCENARIO.fullmatch(line)
        at = found["title"] if found and found["title"] else at
        chosen = [scenario.name for scenario in known if root._is_at(scenario, path, number)]
        if found or not line.strip() or line.lstrip().startswith(("@", "Feature:")):
            assert chosen == ([at] if found else []), f"{path.name}:{number}: {line}"


def test_line_of_another_feature_chooses_nothing(root: Any) -> None:
    (first, *_) = scenarios(SITE)

    assert root._is_at(first, SITE, first.line_number)
    assert not root._is_at(first, DISCOVERY, first.line_number)
    assert not root._is_at(first, DISCOVERY, 0)


def test_scenario_without_steps_is_chosen_by_its_line(root: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.feature"
    path.write_text("Feature: A\n  Scenario: Empty\n\n  Scenario: Last\n    Given a cluster\n")
    empty, last = [it.render({}) for it in FeatureParser(str(tmp_path), path.name).parse().scenarios.values()]

    assert [root._is_at(empty, path, line) for line in (1, 2, 3, 4)] == [False, True, False, False]
    assert [root._is_at(last, path, line) for line in (3, 4, 5, 6)] == [False, True, True, False]


def test_what_chooses_nothing_is_told(root: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    items = scenarios(SITE)
    monkeypatch.setattr(root, "scenario_of", lambda item: item)
    chosen = [(SITE, 1), (SITE, 0), (SITE, items[0].line_number), (SITE, 999), (DISCOVERY, 0)]
    config: Any = SimpleNamespace(stash={root.CHOSEN: chosen}, rootpath=ROOT)

    assert root.chooses_nothing(config, items) == (
        "line 1 of features/08_site.feature is in no scenario, line 999 of features/08_site.feature is in no scenario, "
        "no scenario of features/02_discovery.feature is chosen"
    )


# -- what a cluster lacks --------------------------------------------------------------------------------------------

STATE = "needs the operator's variables and Terraform's state, and this run knows the target's outputs only"
NAMES = "needs a name server, and this cluster's entry point is fixed"
POWER = "needs machines that can be switched off, and this target's cannot"
REMAKING = "needs a plan that makes a lost machine again, and on this target no plan notices that one is lost"
MOST = "needs room for one machine more, and this is the most"


def few(machines: int) -> str:
    return f"needs 3 machines or more, to lose one, and there are {machines}"


@pytest.fixture
def built(tmp_path: Path) -> Callable[..., Path]:
    """The workplace of a run that built a cluster."""

    def make(
        machines: int = 3,
        example: int | None = None,
        name_server: str = "192.0.2.4",
        power: tuple[str, ...] = ("off", "gone"),
        hosts: int | None = None,
        registry: str = "192.0.2.10:5000",
    ) -> Path:
        operators = tmp_path / "operator"
        target = operators / "infra/local"
        target.mkdir(parents=True)
        (operators / "terraform.example.tfvars").write_text(f"machines = {example or machines}\n")
        if example:
            (operators / "terraform.tfvars").write_text(f"machines = {machines}  # of them\n")
        data: dict[str, Any] = {"power": {way: ["true"] for way in power}} if power else {}
        if hosts is not None:
            data["a_machine_for_each"] = "hosts"
            addresses = "".join(f'  "192.0.2.{10 + index}",\n' for index in range(hosts))
            (target / "hosts.auto.tfvars").write_text(f'hosts = [\n{addresses}]\nuser = "debian"\n')
        (target / "target.json").write_text(json.dumps(data))
        (target / "run.auto.tfvars.json").write_text(
            json.dumps({"name_server": name_server, "image_registry": registry})
        )
        (tmp_path / "operator.json").write_text(json.dumps({"cwd": str(operators), "env": {"TARGET": "local"}}))
        return tmp_path

    return make


@pytest.fixture
def of_outputs(tmp_path: Path) -> Callable[..., Path]:
    """The workplace of a check on a cluster that a target's outputs tell of."""

    def make(machines: int = 3, name_server: str = "192.0.2.4") -> Path:
        addresses = {f"coreos-{index}": f"192.0.2.{10 + index}" for index in range(machines)}
        outputs = Outputs("192.0.2.10", addresses, "core", "", {"blog": "a.example"}, name_server, tuple(addresses))
        values = {name: it["value"] for name, it in json.loads(as_printed(outputs)).items()}
        (tmp_path / "outputs.json").write_text(json.dumps(values))
        return tmp_path

    return make


@pytest.fixture
def missing(root: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Why a scenario with these tags is left out on the cluster of a workplace."""

    monkeypatch.setattr(root.shutil, "which", lambda name: f"/usr/bin/{name}")

    def ask(workplace: Path | str, *tags: str, of_feature: tuple[str, ...] = (), steps: tuple[str, ...] = ()) -> str:
        feature = SimpleNamespace(tags=set(of_feature))
        named = [SimpleNamespace(name=step) for step in steps]
        scenario = SimpleNamespace(tags=set(tags), feature=feature, steps=named, rule=None)
        monkeypatch.setattr(root, "scenario_of", lambda item: scenario)
        monkeypatch.setenv("PLATFORM_WORKPLACE", str(workplace))
        monkeypatch.setenv("PLATFORM_FOLDER", str(workplace))
        return str(root.missing(None))

    return ask


def test_what_builds_is_left_out_of_a_run_of_outputs(
    of_outputs: Callable[..., Path], missing: Callable[..., str]
) -> None:
    assert missing(of_outputs(), "builds") == "builds the cluster, and this one stands"


BESIDE = "needs the registry and the discovery service on a machine, and this cluster's run beside it"
NEEDS = (
    "requires_state",
    "requires_three_machines",
    "requires_name_server",
    "requires_power",
    "requires_remaking",
    "requires_one_more",
)


@pytest.mark.parametrize(
    ("cluster", "tags", "reason"),
    [
        ({"machines": 2}, ["requires_three_machines"], few(2)),
        ({"machines": 1, "example": 3}, ["requires_three_machines"], few(1)),
        ({"name_server": ""}, ["requires_name_server"], NAMES),
        ({"power": ()}, ["requires_power"], POWER),
        ({"power": ("off", "on")}, ["requires_power", "requires_remaking"], REMAKING),
        ({"machines": 3, "hosts": 3}, ["requires_one_more"], MOST),
        ({"machines": 4, "example": 4}, ["requires_one_added"], "needs a machine that was added, and none was"),
        ({"machines": 100}, ["requires_one_more"], MOST),
        ({}, ["requires_services_on_a_machine"], BESIDE),
        ({"hosts": 4, "registry": "192.0.2.3:5000"}, ["requires_services_on_a_machine"], BESIDE),
        ({"machines": 2, "power": ()}, ["requires_power", "requires_three_machines"], few(2)),
        ({"power": ()}, [*NEEDS, "destructive"], POWER),
    ],
)
def test_scenario_is_left_out_where_the_cluster_lacks_what_it_needs(
    built: Callable[..., Path], missing: Callable[..., str], cluster: dict[str, Any], tags: list[str], reason: str
) -> None:
    workplace = built(**cluster)

    assert missing(workplace, *tags) == reason
    assert missing(workplace, of_feature=tuple(tags)) == reason
    assert missing(workplace, "destructive") == ""


CUTS = "needs a network that can be cut, and "
NO_WAY = f"{CUTS}this target has no way to switch network of coreos-0 cut"


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        ({}, NO_WAY),
        ({"cut": ["true"]}, ""),
        ({"cut": ["true"], "try": ["true"]}, ""),
        (
            {"cut": ["true"], "try": ["sh", "-c", "echo no such expression >&2; false"]},
            f"{CUTS}network of coreos-0 cannot be switched cut: no such expression",
        ),
    ],
)
def test_network_is_cut_where_the_target_can_and_its_machines_do(
    built: Callable[..., Path], missing: Callable[..., str], network: dict[str, list[str]], reason: str
) -> None:
    workplace = built()
    (workplace / "operator/infra/local/target.json").write_text(json.dumps({"network": network}))

    assert missing(workplace, "requires_network_cuts") == reason
    assert missing(workplace, "requires_three_machines") == ""


ALL_WAYS: dict[str, list[str]] = {way: ["true"] for way in ("off", "on", "freeze", "thaw")}
GIVEN = {**ALL_WAYS, "try": ["sh", "-c", "test {machine} = discovery || { echo given >&2; false; }"]}


@pytest.mark.parametrize(
    ("fault", "target", "reason"),
    [
        ("registry-gone", {"backing": ALL_WAYS}, ""),
        ("registry-gone", {}, "this target has no way to switch backing registry off"),
        ("registry-gone", {"backing": GIVEN}, "backing registry cannot be switched off: given"),
        ("discovery-service-gone", {"backing": GIVEN}, ""),
        ("disk-full", {}, "this target's machines have no disk of its own for /var/lib/docker, to be filled"),
        ("disk-full", {"fills": ["/var/lib/docker"]}, ""),
    ],
)
def test_fault_is_injected_where_the_target_can(
    built: Callable[..., Path], missing: Callable[..., str], fault: str, target: dict[str, Any], reason: str
) -> None:
    data = json.dumps(target).replace("{ echo", "{{ echo").replace("; }", "; }}")
    workplace = built()
    (workplace / "operator/infra/local/target.json").write_text(data)

    left_out = missing(workplace, "destructive", steps=(f'fault "{fault}" is injected',))
    assert left_out == (reason and f"needs fault {fault}, and {reason}")
    assert missing(workplace, "destructive", steps=(f'fault "{fault}" is undone',)) == ""


def test_a_machine_that_was_added_can_be_taken_out_though_there_is_room_for_no_other(
    built: Callable[..., Path], missing: Callable[..., str]
) -> None:
    assert missing(built(machines=4, example=3, hosts=4), "requires_one_added") == ""


def test_network_of_a_cluster_that_is_known_by_outputs_is_not_cut(
    of_outputs: Callable[..., Path], missing: Callable[..., str]
) -> None:
    assert missing(of_outputs(), "requires_network_cuts") == "needs to reach the machines from outside them"


@pytest.mark.parametrize("cluster", [{}, {"machines": 9}, {"machines": 3, "example": 1}, {"machines": 3, "hosts": 4}])
def test_scenario_is_left_in_where_the_cluster_has_all_that_it_needs(
    built: Callable[..., Path], missing: Callable[..., str], cluster: dict[str, Any]
) -> None:
    assert missing(built(**cluster), *NEEDS, "mutates") == ""


def test_services_on_a_machine_are_lost_with_it_where_a_host_holds_them(
    built: Callable[..., Path], missing: Callable[..., str]
) -> None:
    assert missing(built(hosts=3, registry="192.0.2.10:5000"), "requires_services_on_a_machine") == ""


@pytest.mark.parametrize(
    ("cluster", "tag", "reason"),
    [
        ({}, "requires_state", STATE),
        ({}, "requires_power", POWER),
        ({}, "requires_three_machines", ""),
        ({}, "requires_name_server", ""),
        ({"machines": 2}, "requires_three_machines", few(2)),
        ({"name_server": ""}, "requires_name_server", NAMES),
    ],
)
def test_of_outputs_what_they_do_not_tell_is_left_out(
    of_outputs: Callable[..., Path], missing: Callable[..., str], cluster: dict[str, Any], tag: str, reason: str
) -> None:
    assert missing(of_outputs(**cluster), tag) == reason


def test_scenario_that_asks_the_name_server_is_left_out_where_there_is_no_dig(
    built: Callable[..., Path], missing: Callable[..., str], root: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(root.shutil, "which", lambda name: None)

    workplace = built()

    assert missing(workplace, "requires_name_server") == "needs dig: install bind9-dnsutils"
    assert missing(workplace, "requires_power") == ""


def test_scenario_that_needs_nothing_asks_nothing(missing: Callable[..., str]) -> None:
    assert missing("/nowhere", "site") == ""


def test_needs_are_all_tried_here() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]

    needs = {tag.partition(":")[0] for tag in declared if tag.startswith("requires_")}
    assert needs == {*NEEDS, "requires_one_added", "requires_services_on_a_machine", "requires_network_cuts"}


# -- what pytest collects --------------------------------------------------------------------------------------------

SECOND = scenarios(SITE)[1]
LAST_STEP = SECOND.steps[-1].line_number
CASES: dict[str, list[str]] = {
    "all": ["features"],
    "unknown": ["features/08_sites.feature:7"],
    "no scenario's line": ["features/08_site.feature:1"],
    "file": ["features/08_site.feature"],
    "line": [f"features/08_site.feature:{LAST_STEP}"],
    "several": [f"features/08_site.feature:{SECOND.line_number}", str(DISCOVERY), "./features/02_discovery.feature:1"],
    "with -m": ["features/08_site.feature", "features/02_discovery.feature", "-m", "mutates"],
    "with -k": ["-k", "whole", "features/08_site.feature", "features"],
    "none of both": ["features/08_site.feature", "-m", "load"],
}
Collected = tuple[int, list[tuple[Path, int]], str]


@pytest.fixture(scope="module")
def collected() -> Callable[[str], Collected]:
    """Exit status, file and line of each scenario that is left, and what was said, of a case."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PLATFORM_", "PYTEST_"))}
    done = subprocess.run(
        [sys.executable, "-c", COLLECT, json.dumps(list(CASES.values()))],
        cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    runs = dict(zip(CASES, json.loads(done.stdout), strict=True))

    def of(case: str) -> Collected:
        status, left, said = runs[case]
        return status, [(Path(path), line) for path, line in left], said

    return of


def test_unknown_feature_is_wrong_usage(collected: Callable[[str], Collected]) -> None:
    status, found, said = collected("unknown")

    assert (status, found) == (pytest.ExitCode.USAGE_ERROR, [])
    assert "ERROR: there is no features/08_sites.feature: did you mean 08_site.feature? features are " in said


@pytest.mark.parametrize("case", ["no scenario's line", "none of both"])
def test_choice_that_leaves_nothing_says_so(collected: Callable[[str], Collected], case: str) -> None:
    status, found, said = collected(case)

    assert (status, found) == (pytest.ExitCode.NO_TESTS_COLLECTED, [])
    assert "deselected" in said


def test_without_a_choice_everything_is_left_in_the_runbooks_order(collected: Callable[[str], Collected]) -> None:
    assert collected("all")[:2] == (0, all_of(*FEATURES))


def test_file_chooses_its_scenarios(collected: Callable[[str], Collected]) -> None:
    assert collected("file")[:2] == (0, all_of(SITE))


def test_line_chooses_one_scenario(collected: Callable[[str], Collected]) -> None:
    status, found, said = collected("line")

    assert (status, found) == (0, [(SITE, SECOND.line_number)])
    assert f"{len(all_of(*FEATURES)) - 1} deselected" in said


def test_several_choose_all_of_theirs_once_in_the_runbooks_order(collected: Callable[[str], Collected]) -> None:
    assert collected("several")[:2] == (0, [*all_of(DISCOVERY), (SITE, SECOND.line_number)])


def test_tags_choose_among_what_features_chose(collected: Callable[[str], Collected]) -> None:
    mutating = [it for it in scenarios(DISCOVERY) if "mutates" in it.tags]

    assert mutating and collected("with -m")[:2] == (0, [(DISCOVERY, it.line_number) for it in mutating])


def test_words_choose_among_what_features_chose(collected: Callable[[str], Collected]) -> None:
    titled = [it for it in scenarios(SITE) if "whole" in it.name.lower()]

    assert titled and collected("with -k")[:2] == (0, [(SITE, it.line_number) for it in titled])


# -- what a selection leaves out of a run that builds its cluster ------------------------------------------------------


@pytest.fixture
def scenarios_of(root: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[SimpleNamespace]]:
    """Scenarios with these tags, as a run collects them that builds its cluster, or that checks one."""

    def make(*tags: str, builds: bool = True, expression: str = "") -> list[SimpleNamespace]:
        monkeypatch.setattr(root, "scenario_of", lambda item: item)
        monkeypatch.setenv("PLATFORM_FOLDER", "here")
        monkeypatch.setenv("PLATFORM_WORKPLACE", "here" if builds else "elsewhere")
        config = SimpleNamespace(getoption=lambda name: expression if name == "-m" else False, stash={root.CHOSEN: []})
        feature = SimpleNamespace(tags=set())
        return [SimpleNamespace(tags={tag}, steps=[], feature=feature, config=config, rule=None) for tag in tags]

    return make


def chosen(plugin: Any, items: list[Any], keep: Callable[[Any], bool]) -> list[str]:
    """What is left of the items when somebody has chosen among them: each one's tag, or why it is left out."""
    choosing = plugin.pytest_collection_modifyitems(items)
    next(choosing)
    items[:] = [item for item in items if keep(item)]
    next(choosing, None)

    def said(item: Any) -> str:
        try:
            plugin.pytest_runtest_setup(item)
        except pytest.skip.Exception as skipped:
            return str(skipped)
        return str(*item.tags)

    return [said(item) for item in items]


def test_run_that_builds_its_cluster_does_that_whatever_is_chosen_and_says_what_it_leaves_out(
    root: Any, scenarios_of: Callable[..., list[SimpleNamespace]]
) -> None:
    items = scenarios_of("builds", "site", "destructive")

    assert chosen(root.Choosing(), items, lambda item: item.tags == {"site"}) == [
        "builds", "site", "left out: something else was chosen",
    ]  # fmt: skip


def test_run_that_builds_its_cluster_leaves_nothing_out_where_nothing_is_chosen(
    root: Any, scenarios_of: Callable[..., list[SimpleNamespace]]
) -> None:
    items = scenarios_of("builds", "site")

    assert chosen(root.Choosing(), items, lambda item: True) == ["builds", "site"]


@pytest.mark.parametrize(
    ("expression", "said"),
    [("not slow", "slow: `make recovery` runs it"), ("builds", "left out: something else was chosen")],
)
def test_what_is_slow_is_left_out_as_that_where_nothing_else_was_chosen(
    root: Any, scenarios_of: Callable[..., list[SimpleNamespace]], expression: str, said: str
) -> None:
    items = scenarios_of("builds", "slow", expression=expression)

    assert chosen(root.Choosing(), items, lambda item: item.tags == {"builds"}) == ["builds", said]


def test_check_of_a_cluster_that_stands_is_of_what_is_chosen_and_of_nothing_else(
    root: Any, scenarios_of: Callable[..., list[SimpleNamespace]]
) -> None:
    items = scenarios_of("builds", "site", "destructive", builds=False)

    assert chosen(root.Choosing(), items, lambda item: item.tags == {"site"}) == ["site"]


def test_run_that_builds_its_cluster_does_not_for_a_selection_that_chooses_nothing(
    root: Any, scenarios_of: Callable[..., list[SimpleNamespace]]
) -> None:
    with pytest.raises(pytest.UsageError, match="it chooses no scenario"):
        chosen(root.Choosing(), scenarios_of("builds", "site"), lambda item: False)


def test_check_that_chooses_nothing_verifies_nothing(
    root: Any, scenarios_of: Callable[..., list[SimpleNamespace]]
) -> None:
    assert chosen(root.Choosing(), scenarios_of("builds", "site", builds=False), lambda item: False) == []


@pytest.mark.parametrize("builds", [True, False])
def test_interruption_breaks_what_follows_and_is_the_end_of_a_cluster_that_was_being_built(
    root: Any, scenarios_of: Callable[..., list[SimpleNamespace]], builds: bool
) -> None:
    scenarios_of("site", builds=builds)
    choosing = root.Choosing()
    assert not choosing.is_over()
    choosing.pytest_keyboard_interrupt()

    assert choosing.is_over() is builds and choosing.broken_by


def test_behind_what_built_the_cluster_or_was_interrupted_nothing_goes_on(
    root: Any, scenarios_of: Callable[..., list[SimpleNamespace]]
) -> None:
    """Nor behind another one that failed than the first."""
    builds, breaks, other = scenarios_of("builds", "destructive", "mutates")
    for number, item in enumerate((builds, breaks, other)):
        item.name = f"scenario {number}"
    choosing = root.Choosing()
    choosing.broken_by = builds.name
    assert not choosing.may_go_on(builds)
    choosing.broken_by = breaks.name
    assert choosing.may_go_on(breaks) and not choosing.may_go_on(other)
    choosing.pytest_keyboard_interrupt()
    assert not choosing.may_go_on(breaks)
