"""The steps of features 10 to 13, in the features' own words: each judgement seen green, and red for the right reason;
what changes something, in the order in which it does; and which scenarios a run cannot execute.

The drivers are fakes, the fixtures between them and the steps (lose, inject, change) are the run's own.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pytest_bdd.parser import FeatureParser, Scenario
from pytest_bdd.steps import step_function_context_registry

from harness.drivers.etcd import Registration
from harness.drivers.services import Ambassador
from harness.drivers.shell import OperatorShell
from harness.drivers.terraform import Plan
from harness.drivers.traffic import Tally
from harness.drivers.units import UnitStates
from harness.errors import EnvironmentFailed, ExitStatus, HarnessError, Misconfigured, PlatformWrong, WaitExpired
from harness.model.registration import registration
from harness.record.log import Recorder, read_events
from harness.rules.finding import RULES, Finding, Subject
from harness.rules.judging import Cause
from harness.runs.faults import Injections, is_left_over, seeding_lock
from harness.runs.plugins import choosing
from harness.runs.watch import RuleBroken
from harness.seams.process import Processes
from harness.seams.wait import NotAnswering, Waiter
from tests.fakes import FakeClock, FakeRunner
from tests.places import program

ROOT = Path(__file__).resolve().parent.parent
ADDRESSES = {f"coreos-{number}": f"192.0.2.1{number}" for number in range(3)}
ONE, TWO, STRAY = "192.0.2.10:32768", "192.0.2.11:32769", "192.0.2.12:32770"


@pytest.fixture(scope="module")
def root(request: pytest.FixtureRequest) -> Any:
    """The composition root, as pytest has loaded it."""
    return request.config.pluginmanager.get_plugin(str(ROOT / "conftest.py"))


# == drivers that are not there ======================================================================================


@pytest.fixture
def log() -> list[tuple[str, ...]]:
    """What was done, in its order."""
    return []


@pytest.fixture
def change(log: list[tuple[str, ...]]) -> Callable[[str], None]:
    return lambda what: log.append(("change", what))


@dataclass
class FakeMachines:
    """Three machines: what is done to them is logged."""

    log: list[tuple[str, ...]]
    addresses: Mapping[str, str] = field(default_factory=lambda: dict(ADDRESSES))
    entries: Collection[str] = tuple(ADDRESSES)
    lost: set[str] = field(default_factory=set)
    raises: BaseException | None = None

    @property
    def names(self) -> list[str]:
        return [name for name in self.addresses if name not in self.lost]

    @property
    def entry_points(self) -> list[str]:
        return [name for name in self.names if name in self.entries]

    def run(self, name: str, command: str) -> str:
        self.log.append(("run", name, command))
        if self.raises:
            raise self.raises
        return ""

    def on_all(self, ask: Callable[[str], str]) -> dict[str, str]:
        return {name: ask(name) for name in self.names}

    def lose(self, name: str) -> None:
        self.log.append(("lose", name))
        self.lost.add(name)

    def regain(self, name: str) -> None:
        self.log.append(("regain", name))
        self.lost.discard(name)


@pytest.fixture
def machines(log: list[tuple[str, ...]]) -> FakeMachines:
    return FakeMachines(log)


@pytest.fixture
def power(log: list[tuple[str, ...]]) -> Any:
    def switch(way: str) -> Callable[[str], None]:
        return lambda machine: log.append((f"power {way}", machine))

    return SimpleNamespace(**{way: switch(way) for way in ("off", "on", "gone", "freeze", "thaw")})


@dataclass
class FakeServices:
    """What is registered of a service, where it runs, and what its ambassadors say."""

    log: list[tuple[str, ...]]
    is_registered: set[str] = field(default_factory=set)
    runs: dict[str, set[str]] = field(default_factory=dict)
    known: dict[str, Ambassador] = field(default_factory=dict)

    def registered(self, service: str) -> set[str]:
        assert service == "blog"
        return self.is_registered

    def published(self, service: str) -> set[str]:
        return self.runs.get(service, set())

    def ambassadors(self, service: str) -> dict[str, Ambassador]:
        assert service == "blog"
        return self.known

    def inject(self, service: str, name: str, value: str, ttl: int) -> None:
        assert ttl > 0
        self.log.append(("inject", service, name, value))

    def undo(self, service: str, name: str) -> None:
        self.log.append(("undo", service, name))


@pytest.fixture
def services(log: list[tuple[str, ...]]) -> FakeServices:
    return FakeServices(log)


class FakeStates(UnitStates):
    """Unit -> on which machines it runs, one look after the other; the last one stays."""

    def __init__(self) -> None:
        self.looks: dict[str, list[list[str]]] = {}

    def machines_running(self, unit: str) -> list[str]:
        looks = self.looks.get(unit, [[]])
        return looks.pop(0) if len(looks) > 1 else looks[0]


@pytest.fixture
def unit_states() -> FakeStates:
    return FakeStates()


@dataclass
class FakeWatch:
    """What is asked of the looks: each question's rules, and the seconds that they have. All rules hold, but those that
    are `broken`."""

    log: list[tuple[str, ...]]
    asked: list[tuple[str, tuple[str, ...], float]] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    expected: list[tuple[str, Subject]] = field(default_factory=list)
    made: list[tuple[str, str]] = field(default_factory=list)
    silent: HarnessError | None = None

    def until(self, what: str, rules: Collection[str], within: float) -> None:
        self.log.append(("until", what))
        self.asked.append(("until", tuple(rules), within))
        if self.broken & set(rules):
            raise PlatformWrong(what, expected="that", seen="this")

    def names(self, what: str, expected: Collection[tuple[str, str]], within: float) -> None:
        self.asked.append(("names", tuple(rule for rule, _ in expected), within))
        if self.broken & {rule for rule, _ in expected}:
            raise WaitExpired(what, expected="that", seen="this")

    def stays(self, seconds: float, within: float) -> None:
        self.asked.append(("stays", tuple(RULES), within))
        self.log.append(("stays", f"{seconds:g}"))
        if self.broken:
            raise PlatformWrong("all stays as it must be", expected="that", seen="this")

    def settled(self, within: float) -> None:
        self.log.append(("settled",))
        self.asked.append(("settled", tuple(RULES), within))
        if self.broken:
            raise PlatformWrong("all is as it must be", expected="that", seen="this")

    def changed(self) -> None:
        self.log.append(("looked no more",))

    def others(self) -> list[str]:
        return ["clock-agrees", "room-is-left"]

    @contextmanager
    def expecting(self, *broken: tuple[str, Subject]) -> Iterator[None]:
        self.expected += broken
        yield
        self.log.append(("expected no more",))

    @contextmanager
    def making(self, causes: Collection[tuple[str, str]]) -> Iterator[None]:
        self.made += causes
        yield

    def diagnose(self, within: float) -> None:
        self.log.append(("diagnosed", f"{within:g}"))
        if self.silent is not None:
            raise self.silent


@pytest.fixture
def watch(log: list[tuple[str, ...]]) -> FakeWatch:
    return FakeWatch(log)


@pytest.fixture
def cluster(machines: FakeMachines, services: FakeServices, unit_states: FakeStates, sites: Any) -> Any:
    return SimpleNamespace(machines=machines, services=services, units=unit_states, sites=sites)


@pytest.fixture
def waiter(recorder: Recorder, clock: FakeClock) -> Waiter:
    return Waiter(recorder, clock)


class FakeStream:
    """Requests to a site, of which this is said; `right` are the seconds since the last one that was not."""

    def __init__(self, made: int = 100, failed: int = 0, wrong: int = 0, after: float = 0, right: float = 9) -> None:
        self.said = Tally(made, failed, wrong, after, "status 503" if failed + wrong else "")
        self.right, self.rate, self.last_seen = right, 20, "a-version"

    def tally(self) -> Tally:
        return self.said

    def settled(self) -> Tally:
        return self.said

    def right_for(self) -> float:
        return self.right


@pytest.fixture(autouse=True)
def _usual_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATIENCE", raising=False)


Step = Callable[..., Any]
SUBJECTS = ("infrastructure", "cluster", "units", "sites", "services", "machines", "power")
MODULES = tuple(f"steps.{name}" for name in SUBJECTS)


@pytest.fixture
def step(request: pytest.FixtureRequest) -> Step:
    """Executes a step by its words, with the fixtures that it names; what is given goes before them."""

    def execute(kind: str, text: str, **given: Any) -> Any:
        (found,) = (
            it
            for it in step_function_context_registry.values()
            if it.step_func.__module__ in MODULES and it.type in (kind, None) and it.parser.is_matching(text)
        )
        given |= found.parser.parse_arguments(text) or {}
        names = [name for name in inspect.signature(found.step_func).parameters if name not in given]
        fixtures = {name: request.getfixturevalue(name) for name in names}
        taken = {name: given[name] for name in inspect.signature(found.step_func).parameters if name in given}
        return found.step_func(**taken, **fixtures)

    return execute


def red(step: Step, text: str, **given: Any) -> PlatformWrong:
    """What a Then says when it does not hold."""
    with pytest.raises(PlatformWrong) as raised:
        step("then", text, **given)
    assert raised.value.expected and raised.value.status is ExitStatus.PLATFORM_WRONG
    return raised.value


# == what is asked of the looks ======================================================================================


def written() -> Iterator[tuple[str, str]]:
    """Type and words of every step of the features that is judged on a look, each once."""
    every = [it for it in step_function_context_registry.values() if it.step_func.__module__ in MODULES]
    every = [it for it in every if it.type != "when"]  # those say what is broken on purpose
    watched = [it for it in every if "watch" in inspect.signature(it.step_func).parameters]
    features = (FeatureParser(str(ROOT), str(path)).parse() for path in sorted((ROOT / "features").glob("*.feature")))
    steps = (step for feature in features for scenario in feature.scenarios.values() for step in scenario.steps)
    for kind, text in dict.fromkeys((step.type, step.name) for step in steps):
        if any(it.type == kind and it.parser.is_matching(text) for it in watched):
            yield kind, text


def test_every_look_is_for_rules_that_there_are_and_has_the_seconds_of_its_words(step: Step, watch: FakeWatch) -> None:
    for kind, text in written():
        watch.asked.clear()
        step(kind, text, lost_machine="coreos-1", injected=[("unit-runs", "unit x")])

        ((how, rules, seconds),) = watch.asked
        assert rules and set(rules) <= set(RULES) and len(set(rules)) == len(rules), text
        named = re.search(r"(?:within|for) (\d+) seconds$", text)
        assert named is None or seconds == int(named[1]), text
        assert (how == "holds") == (" for " in text and "keeps" in text), text


def test_most_of_what_holds_is_judged_on_looks() -> None:
    """The positive control of the test above."""
    assert len(list(written())) > 20


@pytest.mark.parametrize(
    ("kind", "text", "rules"),
    [
        ("then", "every unit is loaded on a machine that its rules allow within 30 seconds",
         {"unit-is-held", "unit-is-placed", "unit-is-reported", "unit-is-wanted"}),
        ("then", "every unit is launched on a machine that its rules allow within 30 seconds",
         {"unit-is-held", "unit-is-placed", "unit-is-reported", "unit-is-wanted"}),
        ("then", "nothing else is wrong within 10 seconds", {"clock-agrees", "room-is-left"}),
    ],
)  # fmt: skip
def test_what_a_step_asks_for(step: Step, watch: FakeWatch, kind: str, text: str, rules: set[str]) -> None:
    step(kind, text)

    assert set(watch.asked[0][1]) == rules


@pytest.mark.parametrize("machines_of", [("coreos-0", "coreos-1", "coreos-2"), ("coreos-0", "coreos-1")])
def test_entry_points_are_the_first_machines(step: Step, machines: FakeMachines, machines_of: tuple[str, ...]) -> None:
    machines.entries = machines_of

    step("given", f"the entry points are the first {len(machines_of)} machines")
    if len(machines_of) == 3:
        step("given", "the entry points are the first 5 machines")
    else:
        with pytest.raises(PlatformWrong, match="the first machines are the entry points"):
            step("given", "the entry points are the first 5 machines")


def test_no_entry_point_is_too_few(step: Step, machines: FakeMachines) -> None:
    machines.entries = ()

    with pytest.raises(PlatformWrong, match="the first machines are the entry points"):
        step("given", "the entry points are the first 5 machines")


def test_all_is_asked_to_stay(step: Step, watch: FakeWatch, log: list[tuple[str, ...]]) -> None:
    step("then", "all stays as it must be for 5 seconds, within 60 seconds")

    assert log == [("stays", "5")] and watch.asked == [("stays", tuple(RULES), 60)]


@pytest.mark.parametrize(
    ("kind", "text", "seen"),
    [
        ("given", "every machine listens on ports 22, 873 and 2380", "[22, 873, 2380]"),
        ("then", "port 22 of every machine and port 443 of every entry point are open to the outside", "(22, 443)"),
        ("then", "ports 873 and 2379 of every machine are closed to the outside", "[873, 2379]"),
        ("then", "every machine reaches the healthy etcd cluster of the first 3 machines within 60 seconds", "3"),
        ("then", 'every file of "sites" is on every machine, byte for byte, within 10 seconds', "sites"),
    ],
)
def test_words_that_no_look_answers_are_refused(step: Step, watch: FakeWatch, kind: str, text: str, seen: str) -> None:
    """A look has its own list: a feature must not claim something that it leaves out."""
    with pytest.raises(PlatformWrong) as raised:
        step(kind, text)

    assert raised.value.seen == seen and watch.asked == []


# == services ========================================================================================================


@pytest.mark.parametrize(
    ("number", "registered", "runs"),
    [
        ("1 address", set(), set()),
        ("1 address", {ONE}, set()),
        ("1 address", set(), {ONE}),
        ("1 address", {ONE}, {TWO}),
        ("1 address", {ONE, TWO}, {ONE, TWO}),
        ("2 addresses", {ONE}, {ONE}),
        ("2 addresses", {ONE, TWO}, {ONE}),
        ("2 addresses", {ONE, STRAY}, {ONE, TWO}),
    ],
)
def test_service_that_runs_at_another_number(
    step: Step, services: FakeServices, number: str, registered: set[str], runs: set[str]
) -> None:
    services.is_registered, services.runs = registered, {"blog": runs}

    wrong = red(step, f'service "blog" runs and is registered at exactly {number} within 15 seconds')

    assert f"exactly {number.split()[0]} within 15 s" in wrong.expected
    assert wrong.seen == f"registered {sorted(registered)}, running {sorted(runs)}"


@pytest.mark.parametrize(("number", "where"), [("1 address", {ONE}), ("2 addresses", {ONE, TWO})])
def test_service_that_runs_at_this_number(step: Step, services: FakeServices, number: str, where: set[str]) -> None:
    services.is_registered, services.runs = where, {"blog": set(where)}

    step("then", f'service "blog" runs and is registered at exactly {number} within 15 seconds')


def test_service_that_is_still_registered(step: Step, services: FakeServices) -> None:
    services.is_registered = {TWO, ONE}

    wrong = red(step, 'service "blog" is registered nowhere within 2 seconds')

    assert wrong.seen == str([ONE, TWO])


def test_service_that_is_registered_nowhere(step: Step, services: FakeServices, clock: FakeClock) -> None:
    step("then", 'service "blog" is registered nowhere within 2 seconds')

    assert clock.slept == []


# -- ambassadors -----------------------------------------------------------------------------------------------------

FOLLOW = 'every ambassador of "blog" has exactly the registered instances within 2 seconds'
REACH = 'every ambassador of "blog" takes the instances that run for healthy within 5 seconds'


def ambassador(registered: Iterable[str] = (ONE,), malformed: tuple[str, ...] = (), **servers: str) -> Ambassador:
    """With these servers, each with what is said of it."""
    names = {"one": ONE, "two": TWO, "stray": STRAY}
    return Ambassador(frozenset(registered), malformed, {names[name]: said for name, said in servers.items()})


GOOD = ambassador(one="UP")


@pytest.mark.parametrize(
    "bad",
    [
        ambassador(),  # no server
        ambassador(two="UP"),
        ambassador(one="UP", stray="DOWN"),
        ambassador((ONE, STRAY), one="UP", stray="UP"),  # has what is registered no more
        ambassador((), one="UP"),  # sees no etcd, and has the servers of before
        ambassador((ONE, STRAY), one="UP"),  # sees another etcd
    ],
)
def test_ambassador_that_does_not_follow(step: Step, services: FakeServices, bad: Ambassador) -> None:
    services.is_registered = {ONE}
    services.known = {"coreos-0": GOOD, "coreos-1": bad, "coreos-2": GOOD}

    wrong = red(step, FOLLOW)

    assert wrong.seen == str({"coreos-1": f"registered {sorted(bad.registered)}, servers {bad.servers}"})
    assert wrong.paste == "docker exec blog-dynamic-amb python3 -m ambassador.show blog"


def test_ambassador_that_has_one_of_two(step: Step, services: FakeServices) -> None:
    services.is_registered = {ONE, TWO}
    services.known = {"coreos-0": ambassador((ONE, TWO), one="UP")}

    red(step, FOLLOW)


@pytest.mark.parametrize(("registered", "known"), [({ONE}, ambassador(())), ({ONE, TWO}, ambassador((TWO,), two="UP"))])
def test_ambassador_that_does_not_see_a_registration(
    step: Step, services: FakeServices, registered: set[str], known: Ambassador
) -> None:
    """Its own etcd shows it one less, and no key is malformed that could explain it."""
    services.is_registered = registered
    services.known = {"coreos-0": known}

    red(step, FOLLOW)


@pytest.mark.parametrize(
    ("registered", "known"),
    [
        ({ONE}, GOOD),
        ({ONE}, ambassador(one="DOWN")),  # how it is, another step asks
        ({ONE, TWO}, ambassador((ONE, TWO), one="UP", two="UP")),
        ({ONE, "no JSON"}, ambassador(malformed=("/a",), one="UP")),  # what is malformed is passed over
        ({ONE, "elsewhere:80"}, ambassador(malformed=("/a",), one="UP")),
    ],
)
def test_ambassadors_that_follow(step: Step, services: FakeServices, registered: set[str], known: Ambassador) -> None:
    services.is_registered = registered
    services.known = {"coreos-0": known, "coreos-1": known}

    step("then", FOLLOW)


@pytest.mark.parametrize(
    ("runs", "bad"),
    [
        ({ONE}, ambassador(one="DOWN")),
        ({ONE}, ambassador()),
        ({ONE}, ambassador(one="UP", stray="UP")),  # takes another service for its own
        ({ONE}, ambassador(one="MAINT", stray="UP")),
        ({ONE, TWO}, GOOD),
        (set(), GOOD),
    ],
)
def test_ambassador_that_takes_the_wrong_ones_for_healthy(
    step: Step, services: FakeServices, runs: set[str], bad: Ambassador
) -> None:
    services.runs = {"blog": runs}
    services.known = {"coreos-1": bad}

    wrong = red(step, REACH)

    assert wrong.seen == f"running {sorted(runs)}, servers { {'coreos-1': bad.servers} }"


def test_nothing_that_runs_is_nothing_that_is_healthy(step: Step, services: FakeServices) -> None:
    services.known = {"coreos-0": ambassador(())}

    assert red(step, REACH).seen == "running [], servers {}"


@pytest.mark.parametrize("known", [GOOD, ambassador(one="UP", stray="DOWN")])
def test_ambassador_that_takes_those_that_run_for_healthy(
    step: Step, services: FakeServices, known: Ambassador
) -> None:
    services.runs, services.known = {"blog": {ONE}}, {"coreos-0": known, "coreos-1": GOOD}

    step("then", REACH)


NOT_THERE = NotAnswering(["docker exec blog-dynamic-amb"], 1, "", "No such container", where="coreos-1")


@pytest.mark.parametrize("text", [FOLLOW, REACH])
def test_ambassador_that_is_not_there_is_waited_for(
    step: Step, services: FakeServices, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    looks: list[BaseException] = [NOT_THERE, NOT_THERE]
    services.is_registered, services.runs = {ONE}, {"blog": {ONE}}

    def ambassadors(service: str) -> dict[str, Ambassador]:
        if looks:
            raise looks.pop()
        return {"coreos-0": GOOD, "coreos-1": GOOD}

    monkeypatch.setattr(services, "ambassadors", ambassadors)

    step("then", text)

    assert len(clock.slept) == 2


@pytest.mark.parametrize("text", [FOLLOW, REACH])
def test_ambassador_that_never_comes_is_told(
    step: Step, services: FakeServices, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    def ambassadors(service: str) -> dict[str, Ambassador]:
        raise NOT_THERE

    monkeypatch.setattr(services, "ambassadors", ambassadors)

    wrong = red(step, text)

    assert isinstance(wrong, WaitExpired) and "No such container" in wrong.seen


# -- requests --------------------------------------------------------------------------------------------------------

RIGHT_AGAIN = 'site "blog" is right again within 5 seconds'
FAILED = 'at most 5 of at least 60 requests to site "blog" failed, and none was answered wrongly'


@pytest.mark.parametrize(
    "stream",
    [
        FakeStream(failed=3, after=5.01),  # right by now, and too late
        FakeStream(wrong=3, after=60),
    ],
)
def test_site_that_was_right_again_too_late(step: Step, stream: FakeStream) -> None:
    wrong = red(step, RIGHT_AGAIN, traffic={"blog": stream})

    assert not isinstance(wrong, WaitExpired)
    assert (wrong.expected, wrong.seen) == ("within 5 s", f"after {stream.said.right_after:g} s")


@pytest.mark.parametrize(
    "stream",
    [
        FakeStream(failed=3, after=4.9, right=0.99),  # not for a second on
        FakeStream(made=3, failed=3, after=1, right=0),
        FakeStream(made=0, right=0),
    ],
)
def test_site_that_is_not_right_again(step: Step, stream: FakeStream) -> None:
    wrong = red(step, RIGHT_AGAIN, traffic={"blog": stream, "jpblog": FakeStream()})

    assert isinstance(wrong, WaitExpired)
    said = stream.said
    assert wrong.seen == f"{said.bad} of {said.made} requests not right: {said.first_seen or '-'}"


@pytest.mark.parametrize("stream", [FakeStream(), FakeStream(failed=3, after=5, right=1)])
def test_site_that_is_right_again(step: Step, stream: FakeStream) -> None:
    step("then", RIGHT_AGAIN, traffic={"blog": stream})


def test_site_that_is_right_again_and_was_answered_wrongly(step: Step) -> None:
    wrong = red(step, RIGHT_AGAIN, traffic={"blog": FakeStream(wrong=1, right=1)})

    assert wrong.seen == "1 answered wrongly, first: status 503"


def test_patience_is_for_sites_too(step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATIENCE", "2.5")

    step("then", RIGHT_AGAIN, traffic={"blog": FakeStream(failed=3, after=12.5)})
    red(step, RIGHT_AGAIN, traffic={"blog": FakeStream(failed=3, after=12.6)})
    step("then", FAILED, traffic={"blog": FakeStream(failed=12)})
    red(step, FAILED, traffic={"blog": FakeStream(failed=13)})


@pytest.mark.parametrize(
    ("stream", "seen"),
    [
        (FakeStream(failed=6), "6 of 100 failed, and 0 in all answered wrongly, first: status 503"),
        (FakeStream(wrong=1), "0 of 100 failed, and 1 in all answered wrongly, first: status 503"),
        (FakeStream(failed=1, wrong=1), "1 of 100 failed, and 1 in all answered wrongly, first: status 503"),
    ],
)
def test_site_that_was_not_served(step: Step, stream: FakeStream, seen: str) -> None:
    wrong = red(step, FAILED, traffic={"blog": stream})

    assert (wrong.expected, wrong.seen) == ("5 failed requests at most, and none answered wrongly", seen)


@pytest.mark.parametrize("made", [0, 59])
def test_too_few_requests_prove_nothing(step: Step, clock: FakeClock, made: int) -> None:
    wrong = red(step, FAILED, traffic={"blog": FakeStream(made=made), "jpblog": FakeStream()})

    assert isinstance(wrong, WaitExpired) and wrong.seen == str(made)
    assert sum(clock.slept) == pytest.approx(60 / 20 + 5, abs=0.3)


@pytest.mark.parametrize("stream", [FakeStream(made=60), FakeStream(failed=5)])
def test_site_that_was_served(step: Step, stream: FakeStream) -> None:
    step("then", FAILED, traffic={"blog": stream, "jpblog": FakeStream(failed=100)})


def test_none_may_fail(step: Step) -> None:
    text = 'at most 0 of at least 60 requests to site "jpblog" failed, and none was answered wrongly'

    step("then", text, traffic={"jpblog": FakeStream()})
    red(step, text, traffic={"jpblog": FakeStream(failed=1)})


@pytest.mark.parametrize("seen", ["a-version", "status 502", "connection refused", ""])
def test_site_that_is_answered_with_something_else(step: Step, seen: str) -> None:
    stream = FakeStream()
    stream.last_seen = seen

    wrong = red(step, 'requests to site "blog" are answered with status 503 within 3 seconds', traffic={"blog": stream})

    assert wrong.seen == seen


def test_site_that_is_answered_with_a_status(step: Step) -> None:
    stream = FakeStream()
    stream.last_seen = "status 503"

    step("then", 'requests to site "blog" are answered with status 503 within 3 seconds', traffic={"blog": stream})


AT_A_MACHINE = "the sites are asked 20 times a second each, at a machine that runs neither"
Started = list[tuple[str, str, int]]


@pytest.fixture
def started() -> Started:
    return []


@pytest.fixture
def start_traffic(started: Started) -> Callable[[str, str, int], None]:
    return lambda site, address, rate: started.append((site, address, rate))


def test_every_machine_runs_a_site(step: Step, unit_states: FakeStates, started: Started) -> None:
    unit_states.looks = {"blog.service": [["coreos-0", "coreos-1"]], "jpblog.service": [["coreos-2"]]}

    with pytest.raises(PlatformWrong, match="there is an entry point that runs no site"):
        step("given", AT_A_MACHINE)

    assert started == []


def test_machine_that_was_lost_is_not_asked(
    step: Step, unit_states: FakeStates, machines: FakeMachines, started: Started
) -> None:
    unit_states.looks = {"blog.service": [["coreos-0"]], "jpblog.service": [["coreos-0"]]}
    machines.lost = {"coreos-1"}

    step("given", AT_A_MACHINE)

    assert {address for _, address, _ in started} == {"192.0.2.12"}


def test_machine_that_is_no_entry_point_is_not_asked(
    step: Step, unit_states: FakeStates, machines: FakeMachines, started: Started
) -> None:
    unit_states.looks = {"blog.service": [["coreos-0"]], "jpblog.service": [["coreos-0"]]}
    machines.entries = ["coreos-0", "coreos-2"]

    step("given", AT_A_MACHINE)

    assert {address for _, address, _ in started} == {"192.0.2.12"}


@pytest.mark.parametrize(
    ("blog", "jpblog", "free"),
    [
        (["coreos-0"], ["coreos-1"], "192.0.2.12"),
        (["coreos-2"], ["coreos-0"], "192.0.2.11"),
        (["coreos-1"], ["coreos-1"], "192.0.2.10"),
    ],
)
def test_sites_are_asked_at_a_machine_that_runs_neither(
    step: Step, unit_states: FakeStates, started: Started, blog: list[str], jpblog: list[str], free: str
) -> None:
    unit_states.looks = {"blog.service": [blog], "jpblog.service": [jpblog]}

    step("given", AT_A_MACHINE)

    assert started == [("blog", free, 20), ("jpblog", free, 20)]


def test_sites_are_asked_at_a_machine_that_is_named(step: Step, started: Started) -> None:
    step("given", 'the sites are asked 7 times a second each, at machine "coreos-1"')

    assert started == [("blog", "192.0.2.11", 7), ("jpblog", "192.0.2.11", 7)]


def test_sites_are_asked_at_their_names(step: Step, started: Started) -> None:
    step("given", "the sites are asked 7 times a second each, at their names")

    assert started == [("blog", "", 7), ("jpblog", "", 7)]


# -- changes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "unit", "done"),
    [
        ('unit "blog.service" starts again', "blog.service", "sudo systemctl restart blog.service"),
        ('the container of unit "blog.service" is killed', "blog.service", "docker kill blog"),
        ('the container of unit "blog@2.service" is killed', "blog@2.service", "docker kill blog-2"),
        (
            '"docker.service" is killed on the machine of unit "blog.service"',
            "blog.service",
            "sudo systemctl kill --kill-whom=main --signal=KILL docker.service",
        ),
    ],
)
def test_change_is_told_before_it_is_made(
    step: Step, log: list[tuple[str, ...]], unit_states: FakeStates, text: str, unit: str, done: str
) -> None:
    unit_states.looks = {unit: [["coreos-1"]]}

    step("when", text)

    assert [entry[0] for entry in log] == ["change", "run"]
    assert (unit in log[0][1] or "on coreos-1" in log[0][1]) and log[1] == ("run", "coreos-1", done)


def test_a_daemon_is_killed_each_time_that_it_is_up(
    step: Step, log: list[tuple[str, ...]], unit_states: FakeStates
) -> None:
    unit_states.looks = {"blog.service": [["coreos-1"]]}
    step("when", '"docker.service" is killed 3 times, whenever it is up, on the machine of unit "blog.service"')

    command = log[1][2]
    assert command.count("until systemctl is-active --quiet docker.service") == 3
    assert command.count("sudo systemctl kill --kill-whom=main --signal=KILL docker.service") == 3


@pytest.mark.parametrize(("way", "done"), [("stopped", "stop"), ("started", "start")])
def test_unit_of_every_machine_is_changed(
    step: Step, log: list[tuple[str, ...]], machines: FakeMachines, way: str, done: str
) -> None:
    machines.lost = {"coreos-1"}

    step("when", f'unit "blog-dynamic-amb.service" is {way} on every machine')

    assert log == [
        ("change", f"blog-dynamic-amb.service is {way} on every machine"),
        ("run", "coreos-0", where_it_is(done, "blog-dynamic-amb.service")),
        ("run", "coreos-2", where_it_is(done, "blog-dynamic-amb.service")),
    ]


WITH_A_UNIT = [
    'unit "blog.service" starts again',
    'the container of unit "blog.service" is killed',
    'the machine of unit "blog.service" is lost',
    'the machine of unit "blog.service" is taken out of service',
    'sshd of the machine of unit "blog.service" hangs',
    'the app of unit "blog.service" hangs',
    'the container of unit "blog.service" is paused',
    '"docker.service" is killed on the machine of unit "blog.service"',
    '"docker.service" is killed 2 times, whenever it is up, on the machine of unit "blog.service"',
]


@pytest.mark.parametrize("on", [[], ["coreos-0", "coreos-1"]])
@pytest.mark.parametrize("text", WITH_A_UNIT)
def test_unit_that_does_not_run_once_is_the_platforms_fault(
    step: Step, log: list[tuple[str, ...]], unit_states: FakeStates, text: str, on: list[str]
) -> None:
    unit_states.looks = {"blog.service": [on]}

    with pytest.raises(PlatformWrong) as raised:
        step("when", text)

    assert type(raised.value) is PlatformWrong and log == []
    assert (raised.value.expected, raised.value.seen) == ("one machine", ", ".join(on) or "none")
    assert raised.value.paste == "fleetctl list-units"


def where_it_is(verb: str, unit: str) -> str:
    """What does it to a unit on a machine that has it, and nothing on another."""
    return f"! systemctl cat {unit} >/dev/null 2>&1 || sudo systemctl {verb} {unit}"


@pytest.fixture
def put_back() -> Iterator[ExitStack]:
    """Closed by the tests that are about it."""
    stack = ExitStack()
    yield stack
    stack.pop_all()


@pytest.mark.parametrize(
    ("text", "back"),
    [
        (
            'unit "etcd-amb.service" is stopped on every machine',
            {
                *(("run", name, where_it_is("start", "etcd-amb.service")) for name in ADDRESSES),
                ("expected no more",),
            },
        ),
        (
            'the machine of unit "blog.service" is taken out of service',
            {("run", "coreos-1", "sudo systemctl start fleet.socket fleet.service")},
        ),
        ('the machine of unit "blog.service" is lost', {("power on", "coreos-1")}),
        ('the machine of unit "blog.service" freezes', {("power thaw", "coreos-1")}),
        ("every machine loses power", {("power on", name) for name in ADDRESSES}),
        (
            'the app of unit "blog.service" hangs',
            {("run", "coreos-1", "docker top blog -eo pid | sed 1d | xargs -r sudo kill -CONT")},
        ),
        (
            'the container of unit "blog.service" is paused',
            {("run", "coreos-1", "docker unpause blog || true")},
        ),
        (
            'sshd of the machine of unit "blog.service" hangs',
            {("run", "coreos-1", "sudo systemctl kill --kill-whom=main --signal=CONT ssh.service")},
        ),
    ],
)
def test_what_was_taken_away_is_put_back_however_the_scenario_ends(
    step: Step,
    log: list[tuple[str, ...]],
    unit_states: FakeStates,
    put_back: ExitStack,
    text: str,
    back: set[tuple[str, ...]],
) -> None:
    unit_states.looks = {"blog.service": [["coreos-1"]]}
    step("when", text)
    log.clear()

    put_back.close()

    assert set(log) == back


def test_sshd_that_hangs_goes_on_by_itself_when_nobody_gets_in_any_more(
    step: Step, log: list[tuple[str, ...]], unit_states: FakeStates
) -> None:
    unit_states.looks = {"blog.service": [["coreos-1"]]}
    step("when", 'sshd of the machine of unit "blog.service" hangs')

    (told, (_, machine, command)) = log
    assert told[0] == "change" and machine == "coreos-1"
    assert re.search(r"systemd-run .* 'sleep \d+; .*=CONT ssh\.service' && sudo .*=STOP ssh\.service$", command)


def test_change_that_fails_is_told(
    step: Step, log: list[tuple[str, ...]], machines: FakeMachines, unit_states: FakeStates
) -> None:
    unit_states.looks, machines.raises = {"blog.service": [["coreos-0"]]}, HarnessError("no such unit")

    for text in (*WITH_A_UNIT[:2], *WITH_A_UNIT[3:]):
        with pytest.raises(HarnessError, match="no such unit"):
            step("when", text)

    assert not machines.lost  # what did not go is still counted


def test_registration_is_left_that_leads_to_another_service(
    step: Step, log: list[tuple[str, ...]], services: FakeServices
) -> None:
    services.runs = {"jpblog": {TWO}, "blog": {ONE}}

    step("when", 'a registration of "blog" is left that leads to service "jpblog"')

    assert log == [
        ("change", f"a registration says {registration(TWO)}"),
        ("inject", "blog", "injected-0", registration(TWO)),
    ]


def test_registration_that_leads_to_a_service_that_runs_nowhere(step: Step, log: list[tuple[str, ...]]) -> None:
    with pytest.raises(PlatformWrong, match="jpblog runs: expected at one address or more, seen nowhere"):
        step("when", 'a registration of "blog" is left that leads to service "jpblog"')

    assert log == []


def test_registration_is_left_that_leads_to_no_machine(
    step: Step, log: list[tuple[str, ...]], machines: FakeMachines
) -> None:
    step("when", 'a registration of "blog" is left that leads to a machine that is gone')

    _, (_, service, _, value) = log
    host = json.loads(value)["host"]
    assert service == "blog" and host == "192.0.2.254" and host not in machines.addresses.values()


def test_malformed_registrations_are_left_each_with_a_name_of_its_own(step: Step, log: list[tuple[str, ...]]) -> None:
    values = ["no JSON", "[]", '{"port": 80}']

    step("when", 'these registrations of "blog" are left', datatable=[[value] for value in values])

    assert log == [
        entry
        for number, value in enumerate(values)
        for entry in (("change", f"a registration says {value}"), ("inject", "blog", f"injected-{number}", value))
    ]


@pytest.mark.parametrize(("patience", "ttl"), [("1", 300), ("2.5", 750), ("1.0001", 301)])
def test_plant_lives_as_long_as_patience_says(
    root: Any, cluster: Any, monkeypatch: pytest.MonkeyPatch, patience: str, ttl: int
) -> None:
    lives: list[int] = []
    monkeypatch.setenv("PATIENCE", patience)
    monkeypatch.setattr(cluster.services, "inject", lambda *_, ttl: lives.append(ttl))

    with ExitStack() as put_back:
        inspect.unwrap(root.inject)(cluster, FakeWatch([]), lambda what: None, put_back)("blog", "a")

    assert lives == [ttl]


def test_plants_are_uprooted_when_the_scenario_ends(
    root: Any, cluster: Any, watch: FakeWatch, log: list[tuple[str, ...]]
) -> None:
    with ExitStack() as put_back:
        put = inspect.unwrap(root.inject)(cluster, watch, lambda what: None, put_back)
        put("blog", "a")
        put("jpblog", "b")
        log.clear()

    assert sorted(log) == [
        ("expected no more",), ("expected no more",), ("undo", "blog", "injected-0"), ("undo", "jpblog", "injected-1"),
    ]  # fmt: skip


def test_what_is_broken_on_purpose_is_no_finding(step: Step, watch: FakeWatch, machines: FakeMachines) -> None:
    machines.lost = {"coreos-1"}
    step("when", 'these registrations of "blog" are left', datatable=[["no JSON"], ["[]"]])
    step("when", 'unit "etcd-amb.service" is stopped on every machine')

    assert watch.expected == [
        ("registration-is-right", Subject("registration", "blog/injected-0")),
        ("registration-is-right", Subject("registration", "blog/injected-1")),
        ("unit-runs", Subject("unit", "etcd-amb.service", "coreos-0")),
        ("unit-runs", Subject("unit", "etcd-amb.service", "coreos-2")),
    ]
    assert {rule for rule, _ in watch.expected} <= set(RULES)


# -- faults that drills seed -----------------------------------------------------------------------------------------

ETCD_STOPS, ETCD_STARTS = (("run", "coreos-1", f"sh -c 'sudo systemctl {verb} etcd'") for verb in ("stop", "start"))
FLUSHED, LOADED = (
    ("run", "coreos-1", f"sh -c 'sudo {command}'")
    for command in ("nft delete table inet platform", "systemctl restart filter")
)
NAMED = "what was injected is named, and nothing else, within 20 seconds"


@pytest.fixture
def seeding(
    root: Any, cluster: Any, runner: FakeRunner, tmp_path: Path, change: Callable[[str], None], watch: FakeWatch
) -> Callable[[ExitStack], Injections]:
    """Makes the run's own `faults`, in a workplace with a target that has no switches."""
    (tmp_path / "infra/some").mkdir(parents=True)
    (tmp_path / "infra/some/target.json").write_text("{}")
    operator = OperatorShell.open(runner, tmp_path / "operator.json", tmp_path, {"TARGET": "some"})
    make = inspect.unwrap(root.faults)
    return lambda put_back: cast("Injections", make(cluster, operator, runner, tmp_path, change, put_back, watch))


@pytest.fixture
def faults(seeding: Callable[[ExitStack], Injections]) -> Iterator[Injections]:
    with ExitStack() as put_back:
        yield seeding(put_back)


def noted(folder: Path) -> list[str]:
    return sorted(note.name for note in folder.glob("fault-*.json"))


def test_fault_is_injected_and_what_is_to_be_named_is_known(
    step: Step, log: list[tuple[str, ...]], tmp_path: Path, watch: FakeWatch
) -> None:
    injected = step("given", 'fault "etcd-stopped" is injected')

    assert injected == watch.made
    assert injected == [("system-unit-runs", "etcd on coreos-1")]
    assert log == [("change", "fault etcd-stopped is injected"), ETCD_STOPS]
    assert noted(tmp_path) == ["fault-etcd-stopped.json"]


def test_another_fault_is_named_beside_it(step: Step, log: list[tuple[str, ...]], tmp_path: Path) -> None:
    injected = step("given", 'fault "etcd-stopped" is injected')
    step("given", 'fault "filter-flushed" is injected as well', injected=injected)

    assert injected == [("system-unit-runs", "etcd on coreos-1"), ("filter-is-loaded", "filter on coreos-1")]
    assert log[2:] == [("change", "fault filter-flushed is injected"), FLUSHED]
    assert noted(tmp_path) == ["fault-etcd-stopped.json", "fault-filter-flushed.json"]


def test_all_causes_of_a_fault_are_to_be_named(step: Step) -> None:
    named = [("system-unit-runs", "etcd on coreos-1"), ("system-unit-runs", "etcd on coreos-2")]

    assert step("given", 'fault "etcd-without-quorum" is injected') == named


def test_fault_of_the_operators_is_typed_by_nobody(step: Step, runner: FakeRunner, log: list[tuple[str, ...]]) -> None:
    runner.on("bash -c")
    step("given", 'fault "unit-stopped-by-fleetctl" is injected')

    assert runner.calls == ["bash -c 'fleetctl stop --no-block jpblog.service'"]
    assert {call.line for call in runner.details} == {None} and log == [
        ("change", "fault unit-stopped-by-fleetctl is injected")
    ]


def test_fault_that_there_is_not_is_wrong_usage(step: Step, log: list[tuple[str, ...]], tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="there is no fault etcd-stoped: did you mean etcd-stopped"):
        step("given", 'fault "etcd-stoped" is injected')

    assert log == [] and noted(tmp_path) == []


def test_fault_that_was_injected_in_part_is_undone(step: Step, machines: FakeMachines, tmp_path: Path) -> None:
    def run(name: str, command: str) -> str:
        machines.log.append(("run", name, command))
        if "stop" in command:
            raise HarnessError("the connection was lost")
        return ""

    machines.run = run  # type: ignore[method-assign]

    with pytest.raises(HarnessError, match="the connection was lost"):
        step("given", 'fault "etcd-stopped" is injected')
    assert machines.log[1:] == [ETCD_STOPS, ETCD_STARTS] and noted(tmp_path) == []


def of_a_scenario() -> Any:
    """A scenario's request of its fixtures."""
    return SimpleNamespace(node=SimpleNamespace(stash=pytest.Stash()))


BROKEN = RuleBroken("x", Cause(Finding("site-is-whole", "content", Subject("site", "blog"), "a", "b", 0.0)))
EXPIRED = WaitExpired("blog is right again: not within 45 s", expected="a", seen="b")


@pytest.mark.parametrize(
    ("failed", "silent", "looked"),
    [
        (EXPIRED, None, True),
        (EXPIRED, HarnessError("nobody answers"), True),
        (BROKEN, None, False),
        (KeyboardInterrupt(), None, False),
        (Misconfigured("x"), None, False),
        (None, None, False),
    ],
)
def test_why_a_scenario_failed_is_looked_for_before_what_it_took_away_is_back(
    root: Any,
    watch: FakeWatch,
    recorder: Recorder,
    log: list[tuple[str, ...]],
    failed: BaseException | None,
    silent: HarnessError | None,
    looked: bool,
) -> None:
    """By rules that hold no more it is known; else it may be gone behind it. A machine that was taken away is counted
    then, for what follows from that to be told as that."""
    request, counted = of_a_scenario(), ["coreos-0", "coreos-1"]
    machines = SimpleNamespace(addresses=[*counted, "coreos-2"], names=counted, regain=counted.append)
    cluster = SimpleNamespace(machines=machines)
    around, watch.silent = inspect.unwrap(root.put_back)(request, watch, recorder, cluster), silent
    next(around).callback(log.append, ("back",))
    if failed is not None:
        root.pytest_bdd_step_error(request, failed)
    next(around, None)

    assert log == [*[("diagnosed", "12")] * looked, ("back",), ("looked no more",)]
    assert watch.made == [("machine-answers", "machine coreos-2")] * looked
    assert counted == ["coreos-0", "coreos-1", *["coreos-2"] * looked]


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda around: next(around, None), id="it passed or failed"),
        pytest.param(lambda around: around.throw(KeyboardInterrupt), id="it was interrupted"),
        pytest.param(lambda around: around.close(), id="nobody asks any more"),
    ],
)
def test_faults_are_undone_however_the_scenario_ends(
    root: Any,
    watch: FakeWatch,
    recorder: Recorder,
    seeding: Callable[[ExitStack], Injections],
    log: list[tuple[str, ...]],
    tmp_path: Path,
    end: Callable[[Any], object],
) -> None:
    around = inspect.unwrap(root.put_back)(of_a_scenario(), watch, recorder, None)
    faults = seeding(next(around))
    faults.inject("etcd-stopped")
    faults.inject("filter-flushed")
    with seeding_lock(tmp_path) as alone:
        assert not alone and not is_left_over(tmp_path)
    log.clear()

    with suppress(KeyboardInterrupt):
        end(around)

    assert log[:2] == [LOADED, ETCD_STARTS] and noted(tmp_path) == []
    with seeding_lock(tmp_path) as alone:
        assert alone


def test_fault_is_undone_once_and_requests_are_counted_from_then_on(
    step: Step, machines: FakeMachines, seeding: Callable[[ExitStack], Injections], tmp_path: Path
) -> None:
    with ExitStack() as put_back:
        faults = seeding(put_back)
        step("when", 'fault "etcd-stopped" is injected', faults=faults)
        machines.log.clear()
        step("when", 'fault "etcd-stopped" is undone', faults=faults)
        assert machines.log == [("change", "fault etcd-stopped is undone"), ETCD_STARTS] and noted(tmp_path) == []
    assert machines.log[2:] == []


def test_what_was_injected_is_to_be_named(step: Step, watch: FakeWatch) -> None:
    injected = [("system-unit-runs", "etcd on coreos-1"), ("filter-is-loaded", "filter on coreos-1")]
    step("then", NAMED, injected=injected)

    assert watch.asked == [("names", ("system-unit-runs", "filter-is-loaded"), 20)]
    watch.broken = {"filter-is-loaded"}
    red(step, NAMED, injected=injected)


def test_after_the_repair_all_is_looked_at_anew(step: Step, watch: FakeWatch, log: list[tuple[str, ...]]) -> None:
    """What was seen while it was broken says nothing any more."""
    step("then", "all is as it must be within 30 seconds")

    assert log == [("looked no more",), ("settled",)] and watch.asked == [("settled", tuple(RULES), 30)]
    watch.broken = {"unit-runs"}
    red(step, "all is as it must be within 30 seconds")


# == machines ========================================================================================================


@pytest.fixture
def outputs() -> Any:
    return None


def test_machine_of_a_unit_is_lost(
    step: Step, log: list[tuple[str, ...]], unit_states: FakeStates, machines: FakeMachines
) -> None:
    unit_states.looks = {"blog.service": [["coreos-1"]]}

    assert step("when", 'the machine of unit "blog.service" is lost') == "coreos-1"

    assert log == [("change", "coreos-1 is lost"), ("power off", "coreos-1"), ("lose", "coreos-1")]
    assert machines.names == ["coreos-0", "coreos-2"]


def test_machine_that_cannot_be_switched_off_is_still_counted(
    step: Step, power: Any, unit_states: FakeStates, machines: FakeMachines
) -> None:
    def off(machine: str) -> None:
        raise HarnessError("refused")

    power.off, unit_states.looks = off, {"blog.service": [["coreos-1"]]}

    with pytest.raises(HarnessError, match="refused"):
        step("when", 'the machine of unit "blog.service" is lost')

    assert not machines.lost


def test_machine_is_lost_for_good(step: Step, log: list[tuple[str, ...]]) -> None:
    assert step("when", 'machine "coreos-2" is lost for good') == "coreos-2"

    assert log == [("change", "coreos-2 is lost for good"), ("power gone", "coreos-2"), ("lose", "coreos-2")]


class Names:
    """A name server: name -> where it leads, one look after the other; the last one stays."""

    def __init__(self, *looks: tuple[str, str]) -> None:
        self.address = "192.0.2.4"
        self._looks = list(looks)

    def lookup(self, name: str) -> str:
        blog, jpblog = self._looks[0]
        if name == "jp.genkisugimoto.com":
            self._looks = self._looks[1:] or self._looks
            return jpblog
        assert name == "genkisugimoto.com"
        return blog


@pytest.fixture
def sites() -> Any:
    """In this order are they looked up."""
    return {
        "blog": SimpleNamespace(domain="genkisugimoto.com"),
        "jpblog": SimpleNamespace(domain="jp.genkisugimoto.com"),
    }


NAMED_IS_LOST = "the machine that the sites' names lead to is lost"


def test_machine_that_the_names_lead_to_is_lost(step: Step, cluster: Any, log: list[tuple[str, ...]]) -> None:
    cluster.name_server = Names(("192.0.2.12", "192.0.2.12"))

    assert step("when", NAMED_IS_LOST) == "coreos-2"

    assert log == [("change", "coreos-2 is lost"), ("power off", "coreos-2"), ("lose", "coreos-2")]


@pytest.mark.parametrize("address", ["", "192.0.2.99"])
def test_names_that_lead_to_no_machine_are_the_platforms_fault(
    step: Step, cluster: Any, log: list[tuple[str, ...]], address: str
) -> None:
    cluster.name_server = Names((address, address))

    with pytest.raises(PlatformWrong) as raised:
        step("when", NAMED_IS_LOST)

    assert (raised.value.expected, raised.value.seen) == ("a machine's address", address or "no address")
    assert log == []


def test_lost_machine_is_switched_on(step: Step, log: list[tuple[str, ...]], machines: FakeMachines) -> None:
    machines.lost = {"coreos-1"}

    step("when", "the lost machine is switched on again", lost_machine="coreos-1")

    assert log == [("change", "coreos-1 is switched on again"), ("power on", "coreos-1")]
    assert machines.lost == {"coreos-1"}  # it is counted when it is to answer


# == power and network ===============================================================================================


@pytest.mark.parametrize(
    ("text", "machine"),
    [
        ('the machine of unit "blog.service" freezes', "coreos-1"),
        ("the machine that the sites' names lead to freezes", "coreos-2"),
    ],
)
def test_machine_that_freezes_is_not_counted_until_it_goes_on(
    step: Step,
    cluster: Any,
    log: list[tuple[str, ...]],
    unit_states: FakeStates,
    machines: FakeMachines,
    text: str,
    machine: str,
) -> None:
    unit_states.looks = {"blog.service": [["coreos-1"]]}
    cluster.name_server = Names(("192.0.2.12", "192.0.2.12"))

    assert step("when", text) == machine
    assert log == [("change", f"{machine} freezes"), ("power freeze", machine), ("lose", machine)]
    log.clear()
    step("when", "the frozen machine goes on", lost_machine=machine)
    assert log == [("change", f"{machine} goes on"), ("power thaw", machine), ("regain", machine)]
    assert machines.names == list(ADDRESSES)


def test_all_machines_lose_power_at_once(step: Step, log: list[tuple[str, ...]], machines: FakeMachines) -> None:
    assert step("when", "every machine loses power") == list(ADDRESSES)

    assert log[0] == ("change", "every machine loses power") and machines.names == []
    assert log[1:] == [(what, name) for what in ("power off", "lose") for name in ADDRESSES]


@pytest.mark.parametrize(
    ("words", "order"),
    [
        ("the machines are", ["coreos-2", "coreos-1", "coreos-0"]),
        ('the machines but "coreos-1" are', ["coreos-2", "coreos-0"]),
    ],
)
def test_machines_are_switched_on_one_after_the_other(
    step: Step, log: list[tuple[str, ...]], clock: FakeClock, words: str, order: list[str]
) -> None:
    began = clock.monotonic()
    left = step("when", f"{words} switched on, the last one first, 5 seconds apart", lost_machines=list(ADDRESSES))

    assert log[1:] == [(what, name) for name in order for what in ("power on", "regain")]
    assert 5 * (len(order) - 1) <= clock.monotonic() - began < 5 * len(order)
    assert left == (None if len(order) == 3 else "coreos-1")


CUT_OFF = [("machines-reach-each-other", "network on coreos-1")]


@pytest.mark.parametrize(("status", "text", "holds"), [(200, "v1\n", True), (200, "v0\n", False), (503, "v1\n", False)])
def test_machine_that_is_cut_off_serves_what_it_runs(
    step: Step, cluster: Any, status: int, text: str, holds: bool
) -> None:
    asked: list[tuple[str, str]] = []
    page = SimpleNamespace(status=status, text=text)
    cluster.site_at = lambda *where: asked.append(where) or SimpleNamespace(fetch=lambda path: page)
    cluster.contents = SimpleNamespace(deployed_last=lambda site: SimpleNamespace(version="v1"))
    words = 'the machine whose network is broken still serves site "blog"'

    if holds:
        step("then", words, injected=CUT_OFF)
    else:
        assert red(step, words, injected=CUT_OFF).seen == ("v0" if status == 200 else "status 503")
    assert asked == [("blog", "192.0.2.11")]


ANSWERS = "the lost machine answers over SSH again within 60 seconds"


def test_lost_machine_is_counted_before_it_is_looked_for(
    step: Step, machines: FakeMachines, watch: FakeWatch, log: list[tuple[str, ...]]
) -> None:
    machines.lost = {"coreos-1"}

    step("then", ANSWERS, lost_machine="coreos-1")

    assert [entry[0] for entry in log] == ["regain", "looked no more", "until"]
    assert watch.asked == [("until", ("machine-answers", "answer-is-whole"), 60)]
    watch.broken = {"machine-answers"}
    red(step, ANSWERS, lost_machine="coreos-1")


def test_machine_is_taken_out_of_service(
    step: Step, log: list[tuple[str, ...]], unit_states: FakeStates, machines: FakeMachines
) -> None:
    unit_states.looks = {"blog.service": [["coreos-2"]]}

    assert step("when", 'the machine of unit "blog.service" is taken out of service') == "coreos-2"

    assert log == [
        ("change", "coreos-2 is taken out of service"),
        ("run", "coreos-2", "sudo systemctl stop fleet.service"),
        ("lose", "coreos-2"),
    ]


def test_machine_is_put_into_service_again(step: Step, log: list[tuple[str, ...]], machines: FakeMachines) -> None:
    machines.lost = {"coreos-2"}

    step("when", "that machine is put into service again", machine_out_of_service="coreos-2")

    assert log == [
        ("change", "coreos-2 is put into service again"),
        ("regain", "coreos-2"),
        ("run", "coreos-2", "sudo systemctl start fleet.socket fleet.service"),
    ]
    assert machines.names == list(ADDRESSES)


# -- units and names that follow -------------------------------------------------------------------------------------


@pytest.mark.parametrize("on", [[], ["coreos-0", "coreos-1"], list(ADDRESSES)])
def test_unit_that_runs_on_none_or_several(step: Step, unit_states: FakeStates, on: list[str]) -> None:
    unit_states.looks = {"blog.service": [on], "jpblog.service": [["coreos-0"]]}

    wrong = red(step, 'unit "blog.service" runs on one machine within 60 seconds')

    assert (wrong.seen, wrong.paste) == (str(on), "fleetctl list-units")


def test_unit_that_runs_once_in_the_end(step: Step, unit_states: FakeStates, clock: FakeClock) -> None:
    unit_states.looks = {"blog.service": [[], ["coreos-0", "coreos-1"], ["coreos-1"]]}

    step("then", 'unit "blog.service" runs on one machine within 60 seconds')

    assert len(clock.slept) == 2


@pytest.mark.parametrize("on", [["coreos-0"], ["coreos-0", "coreos-1"]])
def test_unit_that_still_runs_somewhere(step: Step, unit_states: FakeStates, on: list[str]) -> None:
    unit_states.looks = {"blog.service": [on]}

    wrong = red(step, 'unit "blog.service" runs on no machine within 2 seconds')

    assert (wrong.seen, wrong.paste) == (str(on), "fleetctl list-units")


def test_unit_that_runs_nowhere_in_the_end(step: Step, unit_states: FakeStates, clock: FakeClock) -> None:
    unit_states.looks = {"blog.service": [["coreos-0", "coreos-1"], ["coreos-1"], []]}

    step("then", 'unit "blog.service" runs on no machine within 2 seconds')

    assert len(clock.slept) == 2


# -- processes that are to stay --------------------------------------------------------------------------------------

SAME = "every unit has the process that was noted, and no other began, for 2 seconds"


def test_processes_are_noted_and_stay(step: Step, cluster: Any, clock: FakeClock) -> None:
    cluster.units = SimpleNamespace(processes=lambda: {"a.service on coreos-0": "12"})
    noted = step("given", "the processes of all units are noted")
    step("then", SAME, processes=noted)

    assert noted == {"a.service on coreos-0": "12"} and round(sum(clock.slept)) == 2


@pytest.mark.parametrize(
    ("now", "seen"),
    [
        ({"a.service on coreos-0": "13"}, "not so: a.service on coreos-0"),
        ({}, "not so: a.service on coreos-0"),
        ({"a.service on coreos-0": "12", "a.service on coreos-1": "7"}, "not so: a.service on coreos-1"),
    ],
    ids=["began anew", "ended", "began elsewhere too"],
)
def test_a_process_that_is_another_is_told(step: Step, cluster: Any, now: dict[str, str], seen: str) -> None:
    cluster.units = SimpleNamespace(processes=lambda: now)

    assert red(step, SAME, processes={"a.service on coreos-0": "12"}).seen == seen


def test_where_no_unit_runs_nothing_can_be_noted(step: Step, cluster: Any) -> None:
    cluster.units = SimpleNamespace(processes=dict)
    with pytest.raises(PlatformWrong, match="units run"):
        step("given", "the processes of all units are noted")


def test_the_leader_of_etcd_is_killed(step: Step, cluster: Any, log: list[tuple[str, ...]]) -> None:
    cluster.etcd = SimpleNamespace(leader=lambda: "coreos-1")
    step("when", "the leader of etcd is killed")

    assert log == [
        ("change", "etcd on coreos-1, which leads, is killed"),
        ("run", "coreos-1", "sudo systemctl kill --signal=KILL etcd.service"),
    ]


# -- the number of machines ------------------------------------------------------------------------------------------

TFVARS = '# of them\nmachines = 3 # now\ndiscovery_url = ""\n'


@pytest.mark.parametrize(("way", "number", "left"), [("raises", 1, 4), ("lowers", 1, 2), ("raises", 2, 5)])
def test_operator_changes_the_number_of_machines(
    step: Step, tmp_path: Path, recorder: Recorder, way: str, number: int, left: int
) -> None:
    operator = OperatorShell.open(Processes(recorder), tmp_path / "operator.json", tmp_path, {})
    (tmp_path / "terraform.tfvars").write_text(TFVARS)

    text = f"the operator {way} the number of machines by {number}"
    step("when", text, operator=operator, variables=lambda: {"machines": 3})

    assert (tmp_path / "terraform.tfvars").read_text() == TFVARS.replace("= 3", f"= {left}")


def plan(made: Iterable[str] = (), destroyed: Iterable[str] = ()) -> dict[str, Any]:
    class Planned:
        def plan(self, stored: str) -> Plan:
            assert stored == "platform.plan"
            return Plan(list(made), list(destroyed), [], [])

    return {"terraform": Planned()}


MAKES = 'plan "platform.plan" makes exactly 1 machine'
DESTROYS = 'plan "platform.plan" destroys exactly 1 machine and makes none'


@pytest.mark.parametrize("made", [[], ["coreos-3", "coreos-4"]])
def test_plan_that_makes_another_number(step: Step, made: list[str]) -> None:
    assert red(step, MAKES, **plan(made)).seen == str(made)


def test_plan_that_makes_one(step: Step) -> None:
    step("then", MAKES, **plan(["coreos-3"]))


def test_plan_that_makes_two(step: Step) -> None:
    two = MAKES.replace("1 machine", "2 machines")
    step("then", two, **plan(["coreos-1", "coreos-3"]))

    assert red(step, two, **plan(["coreos-3"])).seen == "['coreos-3']"


@pytest.mark.parametrize(("machines", "lowered"), [(3, 2), (5, 4), (9, 4)])
def test_operator_would_take_a_member_out_and_puts_it_back(
    step: Step, tmp_path: Path, recorder: Recorder, machines: int, lowered: int
) -> None:
    operator = OperatorShell.open(Processes(recorder), tmp_path / "operator.json", tmp_path, {})
    file, before = tmp_path / "terraform.tfvars", TFVARS.replace("= 3", f"= {machines}")
    file.write_text(before)
    with ExitStack() as put_back:
        text = "the operator lowers the number of machines below that of etcd's members"
        step("when", text, operator=operator, variables=lambda: {"machines": machines}, put_back=put_back)
        assert file.read_text() == TFVARS.replace("= 3", f"= {lowered}")

        step("when", "the operator puts the number of machines back", put_back=put_back)
        assert file.read_text() == before


@pytest.mark.parametrize(
    ("made", "destroyed"), [([], []), ([], ["a[2]", "a[3]"]), (["coreos-3"], ["a[3]"]), (["coreos-3"], [])]
)
def test_plan_that_does_not_only_destroy_one(step: Step, made: list[str], destroyed: list[str]) -> None:
    wrong = red(step, DESTROYS, **plan(made, destroyed))

    assert wrong.seen == f"made {made}, destroyed {destroyed}"


def test_plan_that_destroys_one(step: Step) -> None:
    step("then", DESTROYS, **plan(destroyed=["docker_container.machine[3]"]))


MEMBERS = "the cluster has the etcd members that the discovery URL is for, 5 at most"


@pytest.mark.parametrize(("members", "size"), [(0, 3), (2, 3), (4, 3), (6, 6), (5, 7)])
def test_members_that_are_not_those_of_the_url(step: Step, cluster: Any, members: int, size: int) -> None:
    cluster.etcd = SimpleNamespace(members=lambda: {f"coreos-{number}" for number in range(members)})

    red(step, MEMBERS, registration=Registration(size, []))


@pytest.mark.parametrize("members", [1, 3, 5])
def test_members_are_those_of_the_url(step: Step, cluster: Any, members: int) -> None:
    cluster.etcd = SimpleNamespace(members=lambda: {f"coreos-{number}" for number in range(members)})

    step("then", MEMBERS, registration=Registration(members, []))


# == what a run cannot execute =======================================================================================


def of_outputs(folder: Path, machines: int = 3, name_server: str = "192.0.2.4") -> Path:
    """A workplace that knows its cluster by the target's outputs only."""
    folder.mkdir()
    addresses = {f"coreos-{number}": f"192.0.2.{10 + number}" for number in range(machines)}
    outputs: dict[str, Any] = {"entrypoint-ip": "192.0.2.10", "machines": addresses, "ssh-user": "core"}
    outputs |= {"known-hosts": "", "sites": {}, "name-server": name_server, "entry-points": list(addresses)}
    (folder / "outputs.json").write_text(json.dumps(outputs))
    return folder


def of_run(
    folder: Path, machines: int = 3, name_server: str = "192.0.2.4", power: bool = True, chosen: int | None = None
) -> Path:
    """The workplace of a run; `chosen` is the number of machines of the operator's own variables."""
    target = folder / "operator/infra/some"
    target.mkdir(parents=True)
    (target / "target.json").write_text(json.dumps({"power": {"off": ["true"]}} if power else {}))
    (target / "run.auto.tfvars.json").write_text(json.dumps({"name_server": name_server}))
    (folder / "operator/terraform.example.tfvars").write_text(f"machines = {machines}\n")
    if chosen is not None:
        (folder / "operator/terraform.tfvars").write_text(f"machines = {chosen}\n")
    state = {"cwd": str(folder / "operator"), "env": {"TARGET": "some"}}
    (folder / "operator.json").write_text(json.dumps(state))
    return folder


Reason = Callable[..., str]


@pytest.fixture
def reason(root: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reason:
    """Why a scenario with these tags is not executed on the cluster of a workplace; `here`: this run is building it."""

    def scenario(tags: str, of_feature: str) -> Scenario:
        text = f"{of_feature}\nFeature: A\n  {tags}\n  Scenario: B\n    Then a cluster\n"
        (tmp_path / "a.feature").write_text(text)
        (template,) = FeatureParser(str(tmp_path), "a.feature").parse().scenarios.values()
        return template.render({})

    def missing(workplace: Path, tags: str = "", of_feature: str = "", here: bool = False) -> str:
        monkeypatch.setenv("PLATFORM_WORKPLACE", str(workplace))
        monkeypatch.setenv("PLATFORM_FOLDER", str(workplace if here else tmp_path / "this-run"))
        monkeypatch.setattr(choosing, "scenario_of", lambda item: scenario(tags, of_feature))
        return str(choosing.missing(cast("pytest.Item", None)))

    return missing


STATE, THREE = "@requires_state", "@requires_three_machines"
NAMES, POWER = "@requires_name_server", "@requires_power"
ALL = (STATE, THREE, NAMES, POWER)


def test_workplace_that_is_gone_is_told(reason: Reason, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailed, match="the operator's shell of this run is gone"):
        reason(tmp_path, THREE)


def test_scenario_that_needs_nothing_does_not_ask(reason: Reason, tmp_path: Path) -> None:
    assert reason(tmp_path / "nowhere", "@mutates @destructive @slow") == ""


def test_scenario_that_builds_is_for_no_cluster_that_stands(reason: Reason, tmp_path: Path) -> None:
    assert reason(tmp_path / "nowhere", "@builds") == "builds the cluster, and this one stands"
    assert reason(tmp_path / "nowhere", "@builds", here=True) == ""
    assert reason(of_run(tmp_path / "run", machines=1), f"@builds {THREE}", here=True) != ""


@pytest.mark.parametrize(
    ("tag", "has", "said"),
    [
        (THREE, {"machines": 2}, "needs 3 machines or more, to lose one, and there are 2"),
        (THREE, {"machines": 1}, "needs 3 machines or more, to lose one, and there are 1"),
        (THREE, {"machines": 3, "chosen": 2}, "needs 3 machines or more, to lose one, and there are 2"),
        (NAMES, {"name_server": ""}, "needs a name server, and this cluster's entry point is fixed"),
        (POWER, {"power": False}, "needs machines that can be switched off, and this target's cannot"),
    ],
)
def test_cluster_of_a_run_that_lacks_something(
    reason: Reason, tmp_path: Path, tag: str, has: dict[str, Any], said: str
) -> None:
    folder = of_run(tmp_path / "run", **has)

    assert reason(folder, tag) == reason(folder, of_feature=tag) == said
    assert reason(folder, " ".join(ALL)) == said
    assert {other: reason(folder, other) for other in ALL if other != tag} == dict.fromkeys(set(ALL) - {tag}, "")


@pytest.mark.parametrize("has", [{}, {"machines": 100}, {"machines": 1, "chosen": 3}, {"chosen": 4}])
def test_cluster_of_a_run_that_has_all(reason: Reason, tmp_path: Path, has: dict[str, Any]) -> None:
    assert reason(of_run(tmp_path / "run", **has), " ".join(ALL)) == ""


def test_cluster_of_outputs_is_known_by_them(reason: Reason, tmp_path: Path) -> None:
    big, small = of_outputs(tmp_path / "big"), of_outputs(tmp_path / "small", machines=2, name_server="")

    lacks_state = "needs the operator's variables and Terraform's state, and this run knows the target's outputs only"
    assert {tag: reason(big, tag) for tag in (STATE, THREE, NAMES)} == {STATE: lacks_state, THREE: "", NAMES: ""}
    assert "needs machines that can be switched off" in reason(big, POWER)  # what cannot be made again is left on
    assert reason(small, THREE) == "needs 3 machines or more, to lose one, and there are 2"
    assert reason(small, NAMES) == "needs a name server, and this cluster's entry point is fixed"


def test_cluster_that_was_made_before_there_were_name_servers(reason: Reason, tmp_path: Path) -> None:
    folder = of_run(tmp_path / "run")
    (folder / "operator/infra/some/run.auto.tfvars.json").write_text('{"run_id": "20260801-120000-ab12"}')

    assert reason(folder, NAMES) == "needs a name server, and this cluster's entry point is fixed"


def test_run_leaves_out_what_it_lacks_and_says_why(tmp_path: Path) -> None:
    """The features themselves, in a pytest of their own: nothing of them is executed."""
    workplace, folder = of_outputs(tmp_path / "workplace", machines=2, name_server=""), tmp_path / "run"
    folder.mkdir()
    for name in ("docker", "ssh", "terraform", "fleetctl", "dig"):
        program(tmp_path, name, f"#!/bin/sh\necho {name} >> '{tmp_path}/asked'\nexit 1\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PLATFORM_", "PYTEST_"))}
    environment |= {"PLATFORM_FOLDER": str(folder), "PLATFORM_WORKPLACE": str(workplace), "PYTHONPATH": str(ROOT)}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    chosen = " or ".join(tag.removeprefix("@") for tag in ALL)
    options = ["-p", "no:cacheprovider", "-q", "--rootdir", ".", "-m", chosen, "features"]
    argv = [sys.executable, "-m", "pytest", *options]
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
    events = list(read_events(folder / "events.jsonl"))
    needs = {event["id"]: set(event["tags"]) for event in events if event["kind"] == "scenario.planned"}
    ended = {event["id"]: event for event in events if event["kind"] == "scenario.ended"}
    assert set(needs) == set(ended) and set(ALL) <= {f"@{tag}" for tags in needs.values() for tag in tags}
    assert {event["outcome"] for event in ended.values()} == {"not_run"}
    reasons = {name: event["reason"] for name, event in ended.items()}
    for tag, said in (
        (STATE, "needs the operator's variables and Terraform's state, and this run knows the target's outputs only"),
        (THREE, "needs 3 machines or more, to lose one, and there are 2"),
        (NAMES, "needs a name server, and this cluster's entry point is fixed"),
    ):
        assert {reasons.pop(name) for name, tags in needs.items() if tag[1:] in tags and name in reasons} == {said}
    assert reasons == {}
    assert not (tmp_path / "asked").exists() and not any(event["kind"] == "step.started" for event in events)


@pytest.mark.parametrize("outputs_only", [True, False])
def test_a_run_of_outputs_intends_all_and_asks_neither_for_a_plan_nor_the_kernel(
    root: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outputs_only: bool
) -> None:
    given: list[Any] = []
    workplace = of_outputs(tmp_path / "run-1") if outputs_only else of_run(tmp_path / "run-1")
    monkeypatch.setenv("PLATFORM_FOLDER", str(workplace))
    monkeypatch.setattr(root, "Progress", lambda typed, builds: builds)
    monkeypatch.setattr(root, "Cluster", lambda *parts: "the cluster")
    monkeypatch.setattr(root, "looker_of", lambda *arguments: given.append(arguments))
    shell = SimpleNamespace(typed=[])
    watch = next(root.watch.__wrapped__(None, shell, workplace, SimpleNamespace(), None, None, None))
    watch._looker()

    assert [(builds, run_id, plan is None) for _, builds, _, _, run_id, plan in given] == [
        (False, None, True) if outputs_only else (True, "run-1", False)
    ]


# == what holds after a change =======================================================================================


@dataclass
class Settling:
    """A watch, and what says whether a scenario changes something, whether one before it failed, whether there is a
    cluster: `raises` comes from what does not settle."""

    is_changing: bool = True
    broken_by: str = ""
    over: bool = False
    state: bool = True
    mends: bool = True
    well: bool = False
    raises: PlatformWrong | None = None
    fresh: bool = False
    settled_when_fresh: list[bool] = field(default_factory=list)
    restored: list[tuple[object, ...]] = field(default_factory=list)
    last: str = "the look before"

    def anew(self) -> str:
        return "a look"

    def is_over(self) -> bool:
        return self.over

    def changes(self, item: object) -> bool:
        return self.is_changing

    def has_state(self) -> bool:
        return self.state

    def may_go_on(self, item: object) -> bool:
        return self.mends

    def is_well(self, within: float) -> bool:
        assert self.fresh and self.restored and within <= 60
        return self.well

    def settled(self) -> None:
        self.settled_when_fresh.append(self.fresh)
        if self.raises:
            raise self.raises


@pytest.fixture
def scenario_with(root: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Settling], None]:
    """Goes through what stands around each scenario, as pytest does."""

    def execute(it: Settling) -> None:
        monkeypatch.setattr(root, "restore", lambda *given: it.restored.append(given))
        runner, shell = FakeRunner(), SimpleNamespace(cwd=tmp_path, env={})
        request = SimpleNamespace(
            config=SimpleNamespace(pluginmanager=SimpleNamespace(get_plugin={"choosing": it}.get)),
            node=None,
            getfixturevalue={
                "watch": it,
                "terraform": it,
                "process": runner,
                "first_shell": shell,
                "recorder": "the record",
            }.__getitem__,
        )
        around = root.settles.__wrapped__(request)
        next(around)
        assert it.fresh is it.is_changing
        with pytest.raises(StopIteration):
            next(around)

    return execute


def test_after_a_scenario_that_changes_something_all_has_to_settle(scenario_with: Callable[[Settling], None]) -> None:
    it = Settling()
    scenario_with(it)

    assert it.settled_when_fresh == [True] and not it.fresh


@pytest.mark.parametrize(
    "it",
    [
        pytest.param(Settling(is_changing=False), id="it changes nothing"),
        pytest.param(Settling(state=False), id="there is no cluster yet"),
        pytest.param(Settling(broken_by="Every unit runs"), id="it failed already"),
    ],
)
def test_elsewhere_nothing_is_asked_to_settle(scenario_with: Callable[[Settling], None], it: Settling) -> None:
    scenario_with(it)

    assert it.settled_when_fresh == [] and not it.fresh


@pytest.mark.parametrize("over", [True, False])
def test_a_scenario_that_failed_leaves_a_cluster_that_stays_with_its_units(
    scenario_with: Callable[[Settling], None], tmp_path: Path, over: bool
) -> None:
    it = Settling(broken_by="A blog is stopped", over=over)
    scenario_with(it)

    seen = [(look, folder, record, before) for look, _, folder, record, before in it.restored]
    assert seen == ([] if over else [("a look", tmp_path, "the record", "the look before")])


@pytest.mark.parametrize(
    ("it", "stands_on"),
    [
        pytest.param(Settling(broken_by="A blog is stopped", well=True), "", id="all is well again"),
        pytest.param(Settling(broken_by="A blog is stopped"), "A blog is stopped", id="it is not"),
        pytest.param(Settling(broken_by="It is built", well=True, mends=False), "It is built", id="all stands on it"),
        pytest.param(Settling(broken_by="It stops", well=True, over=True), "It stops", id="it is being removed"),
    ],
)
def test_behind_a_scenario_that_failed_others_go_on_where_all_is_well_again(
    scenario_with: Callable[[Settling], None], it: Settling, stands_on: str
) -> None:
    scenario_with(it)

    assert it.broken_by == stands_on


def test_what_does_not_settle_is_told_and_does_not_change_how_later_steps_look(
    scenario_with: Callable[[Settling], None],
) -> None:
    it = Settling(raises=PlatformWrong("all is as it must be", expected="that", seen="this"))
    with pytest.raises(PlatformWrong):
        scenario_with(it)

    assert not it.fresh
