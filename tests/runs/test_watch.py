"""The looks of a run: how often somebody looks, what the limits count from, and what is told when rules do not hold."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from harness.errors import EnvironmentFailed, ExitStatus, PlatformWrong, WaitExpired
from harness.record.log import Recorder, Redactor, fold, read_events
from harness.rules.finding import FLEET_LAG, RULES, Subject, asked_for
from harness.runs import watch as module
from harness.runs.watch import BOOTS, HOLDS, JOURNAL, KEPT, SETTLE, RuleBroken, Watch
from harness.snapshot.data import (
    Fleet,
    FleetMachine,
    FleetUnit,
    Intended,
    IntendedUnit,
    Machine,
    Outside,
    Snapshot,
    Unit,
    Walk,
    decode,
)
from harness.snapshot.look import Looker
from tests.fakes import FakeClock

Events = Callable[..., list[dict[str, Any]]]
NAMES = ("coreos-0", "coreos-1")
ADDRESSES = {"coreos-0": "192.0.2.10", "coreos-1": "192.0.2.11"}
IDS = {"coreos-0": "a0" * 16, "coreos-1": "b1" * 16}
# Those that these tests speak of: of any layer, one that lags, one that compares, one that costs
SILENT, SHARED, VIEWS, RUNS, KEEPS, WHOLE = (
    "machine-answers", "machine-ids-differ", "fleet-views-agree", "unit-runs", "unit-keeps-running", "site-is-whole",
)  # fmt: skip
# What the fake clock shows when a look is taken (seconds since the epoch) is its monotonic time and this
EPOCH = 1785580000.0


@pytest.fixture(autouse=True)
def rules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Those alone: the snapshots of these tests show little. Behind each test all are there again, in their order."""
    monkeypatch.delenv("PATIENCE", raising=False)
    every = dict(RULES)
    for name in every.keys() - {SILENT, SHARED, VIEWS, RUNS, KEEPS, WHOLE}:
        del RULES[name]
    yield
    RULES.clear()
    RULES.update(every)


INTENDED = Intended(
    machines=ADDRESSES, entry_point="192.0.2.10", entry_points=tuple(ADDRESSES),
    sites={"blog": "blog.example"}, name_server="", members_at_most=5,
    units={"blog.service": IntendedUnit(options=(), text="")}, started=True, deployed=("blog",), helpers={}, sshd={},
    listening=(), ports=(), closed=(),
)  # fmt: skip


@dataclass(frozen=True)
class Shows:
    """What a look shows beside a cluster in order. The blog runs on coreos-1."""

    silent: tuple[str, ...] = ()
    same_ids: bool = False
    sees_less: tuple[str, ...] = ()  # machines whose fleet lists one machine only
    active: str = "active"
    pid: int = 7
    broken: str = ""  # link
    refuses: bool = False  # the silent machines say at once that they do not listen
    turn: float = 0.0  # so many seconds later coreos-0 is asked

    def machine(self, name: str, asked: float, takes: float) -> Machine:
        if name in self.silent:
            return Machine(asked=asked, seconds=0.1 if self.refuses else 5.0, silent="timed out")
        runs = self.active == "active"
        unit = Unit(
            load="loaded", active=self.active, sub="running" if runs else "failed", result="success", restarts=0,
            main_pid=self.pid, exit_code=0, exit_status=0, since=None, restart="always", restart_sec=3.0,
            start_limit_interval=None, start_limit_burst=0, fragment="", drop_ins=(), needs_reload=False,
        )  # fmt: skip
        return Machine(
            asked=asked + (self.turn if name == NAMES[0] else 0), seconds=takes, worked=takes,
            machine_id=IDS["coreos-0" if self.same_ids else name], boot="first",
            units={"blog.service": unit} if name == "coreos-1" else {},
            fleet=tuple(IDS.values())[: 1 if name in self.sees_less else 2],
        )  # fmt: skip

    def snapshot(self, number: int, asked: float, walks: dict[str, Walk] | None, takes: float) -> Snapshot:
        return Snapshot(
            number=number, asked=asked, seconds=takes, intended=INTENDED,
            machines={name: self.machine(name, asked, takes) for name in NAMES},
            fleet=Fleet(
                asked_of="coreos-0",
                machines={IDS[name]: FleetMachine(ADDRESSES[name], {"name": name}) for name in NAMES},
                units={"blog.service": FleetUnit("launched", "launched", IDS["coreos-1"])},
                states={"blog.service": (IDS["coreos-1"],)},
            ),
            services={}, deployed={},
            outside=Outside(ports={}, names={}, sites={}, stranger=None, walks=walks, backing={}),
            unasked=("plan",),
        )  # fmt: skip


FINE = Shows()


@dataclass
class FakeLooker:
    """Takes the looks that are prepared, one after the other; the last one stays. A look takes `seconds`."""

    clock: FakeClock
    shows: list[Shows | BaseException] = field(default_factory=lambda: [FINE])
    seconds: float = 0.0
    # what each says that it took
    takes: float = 0.4
    looks: list[tuple[float, bool]] = field(
        default_factory=list
    )  # when each was taken, and whether it was a costly one

    listening: list[bool] = field(default_factory=list)
    within: list[float] = field(default_factory=list)

    def listens(self, names: list[str]) -> bool:
        assert names == ["coreos-1"]
        return self.listening.pop(0)

    def look(
        self, number: int, since: float, before: Snapshot | None = None, *, costly: bool = True, within: float = 90.0
    ) -> Snapshot:
        asked = self.clock.now
        self.looks.append((asked, costly))
        self.within.append(within)
        self.since = since
        self.clock.now += self.seconds
        shows = self.shows.pop(0) if len(self.shows) > 1 else self.shows[0]
        if isinstance(shows, BaseException):
            raise shows
        walk = Walk(pages=3, broken=(shows.broken,) if shows.broken else ())
        walks = {"blog": walk} if costly else before.outside.walks if before else None
        return shows.snapshot(number, EPOCH + asked, cast("dict[str, Walk] | None", walks), self.takes)


# a number that adds up exactly
EVERY = 0.5


@pytest.fixture(autouse=True)
def _looks_are_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY", EVERY)


@pytest.fixture
def looker(clock: FakeClock) -> FakeLooker:
    return FakeLooker(clock)


@pytest.fixture
def watch(looker: FakeLooker, recorder: Recorder, tmp_path: Path, clock: FakeClock) -> Watch:
    """Of a run that changes nothing: all share their looks."""
    return Watch(lambda: cast("Looker", looker), recorder, tmp_path, clock)


@pytest.fixture
def document(recorder: Recorder) -> Callable[[], dict[str, Any]]:
    return lambda: fold(read_events(recorder.path))


def lacks(*silent: str, **shows: Any) -> Shows:
    return Shows(silent=silent, **shows)


def recorded(tmp_path: Path) -> list[int]:
    """Numbers of the snapshots that were written."""
    return [decode(path.read_bytes()).number for path in sorted((tmp_path / "snapshots").glob("*.json"))]


# -- until -----------------------------------------------------------------------------------------------------------


def test_what_holds_is_seen_at_once(watch: Watch, looker: FakeLooker, clock: FakeClock, events: Events) -> None:
    watch.until("every machine answers", (SILENT,), 10)

    assert len(looker.looks) == 1 and clock.slept == []
    (started,), (seen,), (ended,) = (events(f"wait.{kind}") for kind in ("started", "seen", "ended"))
    assert (started["what"], started["within"], started["hold_for"]) == ("every machine answers", 10, 0)
    assert seen["value"] == ended["value"] == "nothing wrong"
    assert (ended["outcome"], ended["id"]) == ("reached", started["id"])


def test_looks_take_half_of_the_time_at_most(watch: Watch, looker: FakeLooker, clock: FakeClock) -> None:
    """A machine that is busy enough is not made busier by being watched."""
    looker.shows, looker.takes = [lacks("coreos-1"), FINE], 2.5

    watch.until("every machine answers", (SILENT,), 10)

    assert clock.slept == [2.5]


def test_machines_that_are_asked_in_turn_are_left_alone_for_as_long_as_all_took(
    watch: Watch, looker: FakeLooker, clock: FakeClock
) -> None:
    looker.shows, looker.takes = [lacks("coreos-1", turn=4.0), FINE], 2.5

    watch.until("every machine answers", (SILENT,), 10)

    assert clock.slept == [6.5]


def test_what_was_only_waited_for_made_nobody_busy(watch: Watch, looker: FakeLooker, clock: FakeClock) -> None:
    looker.shows, looker.takes = [lacks("coreos-1"), FINE], 0.7

    watch.until("every machine answers", (SILENT,), 10)

    assert clock.slept == [0.7]  # the silent one took 5 s


def test_machine_that_boots_is_looked_at_when_it_listens(watch: Watch, looker: FakeLooker, clock: FakeClock) -> None:
    looker.shows, looker.listening = [lacks("coreos-1", refuses=True), FINE], [False, False, True]

    watch.until("every machine answers", (SILENT,), 10)

    assert clock.slept == [EVERY / 2] * 3 and len(looker.looks) == 2


def test_machine_that_refuses_on_and_on_is_looked_at_all_the_same(
    watch: Watch, looker: FakeLooker, clock: FakeClock
) -> None:
    looker.shows, looker.listening = [lacks("coreos-1", refuses=True)], [False] * 100

    with pytest.raises(RuleBroken):
        watch.until("every machine answers", (SILENT,), 10)
    assert 10 <= sum(clock.slept) <= 10 + BOOTS * EVERY / 2


def test_what_holds_in_the_end_is_looked_for_again(
    watch: Watch, looker: FakeLooker, clock: FakeClock, document: Callable[[], dict[str, Any]]
) -> None:
    looker.shows = [lacks("coreos-1")] * 3 + [FINE]

    watch.until("every machine answers", (SILENT,), 10)

    assert clock.slept == [EVERY] * 3
    run = document()
    (wait,) = run["waits"]
    assert [it["value"] for it in wait["seen"]] == [
        "machine coreos-1: expected an answer over SSH, seen timed out",
        "nothing wrong",
    ]
    assert (wait["outcome"], wait["seconds"]) == ("reached", 1.5)
    assert [look["silent"] for look in run["looks"]] == [["coreos-1"]] * 3 + [[]]
    assert run["causes"] == []


def test_what_does_not_hold_within_its_limit_is_told_with_its_cause(
    watch: Watch, looker: FakeLooker, clock: FakeClock, document: Callable[[], dict[str, Any]]
) -> None:
    """The site is asked for; that a machine is silent explains it, and is told instead."""
    looker.shows = [lacks(broken="/a.png: 503"), lacks("coreos-0", broken="/a.png: 503")]

    with pytest.raises(RuleBroken, match="every link answers: not within 2 s; machine coreos-0") as raised:
        watch.until("every link answers", (WHOLE,), 2)

    wrong = raised.value
    assert wrong.status is ExitStatus.PLATFORM_WRONG
    assert (wrong.expected, wrong.seen, wrong.where) == ("an answer over SSH", "timed out", "machine coreos-0")
    assert wrong.layer == "provision" and wrong.paste.startswith("ssh -F ssh_config coreos-0 ")
    assert sum(clock.slept) == 2
    run = document()
    assert run["waits"][0]["outcome"] == "expired"
    (cause,) = run["causes"]
    assert [it["rule"] for it in (cause["finding"], *cause["consequences"])] == [SILENT, WHOLE]
    assert cause["finding"]["about"] == "machine coreos-0" and cause["consequences"][0]["about"] == "site blog"
    assert cause["finding"]["subject"] == ["machine", "", "coreos-0"]
    assert (cause["finding"]["first_seen"], cause["consequences"][0]["first_seen"]) == (EPOCH + 1000.5, EPOCH + 1000)


def test_causes_are_those_of_all_rules_and_that_of_what_was_asked_for_is_raised(
    watch: Watch, looker: FakeLooker, document: Callable[[], dict[str, Any]]
) -> None:
    looker.shows = [lacks("coreos-0", active="failed")]

    with pytest.raises(RuleBroken) as raised:
        watch.until("every unit runs", (RUNS,), 0)

    assert (raised.value.where, raised.value.layer) == ("machine coreos-0", "provision")
    ((finding, consequences),) = [(cause["finding"], cause["consequences"]) for cause in document()["causes"]]
    # of two members of etcd one is gone
    assert (finding["rule"], [it["rule"] for it in consequences]) == (SILENT, [RUNS])


def test_patience_makes_the_limit_longer(
    watch: Watch, looker: FakeLooker, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATIENCE", "3")
    looker.shows = [lacks("coreos-1")]

    with pytest.raises(RuleBroken, match="not within 6 s"):
        watch.until("every machine answers", (SILENT,), 2)
    assert sum(clock.slept) == 6


def test_other_rules_are_not_waited_for(watch: Watch, looker: FakeLooker, clock: FakeClock) -> None:
    looker.shows = [lacks(active="failed")]

    watch.until("machine ids differ", (SHARED,), 10)

    assert clock.slept == []


def test_a_look_that_fails_ends_the_wait(watch: Watch, looker: FakeLooker, events: Events) -> None:
    looker.shows = [lacks("coreos-1"), EnvironmentFailed("the engine does not answer")]

    with pytest.raises(EnvironmentFailed):
        watch.until("every machine answers", (SILENT,), 10)

    (ended,) = events("wait.ended")
    assert (ended["outcome"], "coreos-1" in ended["value"]) == ("failed", True)
    looker.shows = [EnvironmentFailed("the engine does not answer")]
    watch.changed()
    with pytest.raises(EnvironmentFailed):
        watch.until("every machine answers", (SILENT,), 10)
    assert [it["outcome"] for it in events("wait.ended")] == ["failed", "failed"]


# -- what the limit counts from --------------------------------------------------------------------------------------


def test_in_a_run_that_changes_nothing_all_share_one_look(watch: Watch, looker: FakeLooker, clock: FakeClock) -> None:
    for rules in ((SILENT,), (RUNS, SHARED), (WHOLE,)):
        watch.until("it holds", rules, 10)
        clock.now += 60

    assert looker.looks == [(1000.0, True)]


def test_in_a_run_that_changes_nothing_the_limit_counts_from_its_first_look(
    watch: Watch, looker: FakeLooker, clock: FakeClock
) -> None:
    """Many that are wrong do not wait for their limits one after the other."""
    looker.shows = [lacks("coreos-1", same_ids=True)]
    with pytest.raises(RuleBroken):
        watch.until("every machine answers", (SILENT,), 10)
    looker.shows = [lacks(same_ids=True)]
    clock.now += EVERY
    watch.until("every machine answers", (SILENT,), 11)
    taken = len(looker.looks)

    with pytest.raises(RuleBroken, match="not within 10 s"):
        watch.until("machine ids differ", (SHARED,), 10)

    assert len(looker.looks) == taken and clock.now == pytest.approx(1011, abs=1)


def test_where_something_changes_each_wait_has_a_look_and_a_limit_of_its_own(
    watch: Watch, looker: FakeLooker, clock: FakeClock
) -> None:
    watch.fresh = True
    watch.until("every machine answers", (SILENT,), 10)
    clock.now += 60
    looker.shows = [lacks("coreos-1")]

    with pytest.raises(RuleBroken):
        watch.until("every machine answers", (SILENT,), 10)

    assert looker.looks[1][0] == 1060 and clock.now == 1070


def test_a_slow_look_does_not_eat_the_limit_of_what_is_wrong(
    watch: Watch, looker: FakeLooker, clock: FakeClock
) -> None:
    watch.fresh, looker.seconds, looker.shows = True, 8.0, [lacks("coreos-1"), FINE]

    watch.until("every machine answers", (SILENT,), 5)

    assert len(looker.looks) == 2


def test_what_was_seen_before_a_change_says_nothing_after_it(watch: Watch, looker: FakeLooker) -> None:
    watch.until("every machine answers", (SILENT,), 10)
    looker.shows = [lacks("coreos-1")]
    watch.changed()

    with pytest.raises(RuleBroken):
        watch.until("every machine answers", (SILENT,), 0)


def test_the_first_look_is_taken_once_and_shared(watch: Watch, looker: FakeLooker) -> None:
    looker.shows = [lacks("coreos-1"), FINE]

    assert list(watch.first.answering) == ["coreos-0"]
    watch.until("every machine answers", (SILENT,), 10)
    assert list(watch.first.answering) == ["coreos-0"]
    assert [costly for _, costly in looker.looks] == [True, False]


# -- what only a later look can tell ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fresh", [True, False])
def test_what_a_source_may_be_late_with_has_that_time(
    watch: Watch, looker: FakeLooker, clock: FakeClock, fresh: bool
) -> None:
    watch.fresh, looker.shows = fresh, [lacks(sees_less=("coreos-1",))] * 9 + [FINE]

    watch.until("every fleet sees the same", (VIEWS,), 0)

    assert clock.now == 1000 + 9 * EVERY


def test_what_stays_longer_than_its_source_is_late_is_wrong(
    watch: Watch, looker: FakeLooker, clock: FakeClock, document: Callable[[], dict[str, Any]]
) -> None:
    looker.shows = [lacks(sees_less=("coreos-1",))]

    with pytest.raises(RuleBroken, match="1 machines, and coreos-0 sees 2") as raised:
        watch.until("every fleet sees the same", (VIEWS,), 0)

    assert raised.value.where == "fleet on coreos-1" and clock.now == 1000 + FLEET_LAG
    assert document()["causes"][0]["finding"]["first_seen"] == EPOCH + 1000


def test_what_comes_and_goes_without_end_is_wrong(
    watch: Watch, looker: FakeLooker, clock: FakeClock, document: Callable[[], dict[str, Any]]
) -> None:
    """Each look shows another machine, so that none is seen for long enough."""
    one, other = (lacks(sees_less=(name,)) for name in NAMES)
    looker.shows = [one, other] * 100

    with pytest.raises(RuleBroken, match="not within 2 s"):
        watch.until("every fleet sees the same", (VIEWS,), 2)

    assert clock.now == 1000 + 2 + SETTLE
    assert [cause["finding"]["rule"] for cause in document()["causes"]] == [VIEWS]


def test_what_follows_from_something_that_is_told_already_is_not_waited_for(
    watch: Watch, looker: FakeLooker, clock: FakeClock, document: Callable[[], dict[str, Any]]
) -> None:
    """A machine that shares its id with another is seen by no fleet for itself."""
    looker.shows = [lacks(sees_less=("coreos-1",), same_ids=True)]

    with pytest.raises(RuleBroken) as raised:
        watch.until("every fleet sees the same", (VIEWS,), 0)

    assert raised.value.where == "machine coreos-1" and clock.now == 1000
    (cause,) = document()["causes"]
    assert [it["rule"] for it in cause["consequences"]] == [VIEWS]


def test_what_is_unsettled_is_no_cause_of_what_is_settled(
    watch: Watch, looker: FakeLooker, document: Callable[[], dict[str, Any]]
) -> None:
    looker.shows = [lacks(sees_less=("coreos-1",), active="failed")]

    with pytest.raises(RuleBroken):
        watch.until("every unit runs", (RUNS,), 0)

    assert [cause["finding"]["rule"] for cause in document()["causes"]] == [RUNS]


# -- what costs ------------------------------------------------------------------------------------------------------


def test_a_look_of_a_run_that_changes_nothing_has_all(watch: Watch, looker: FakeLooker) -> None:
    watch.until("every machine answers", (SILENT,), 10)

    assert [costly for _, costly in looker.looks] == [True]


def test_where_something_changes_only_what_costs_costs(watch: Watch, looker: FakeLooker) -> None:
    watch.fresh = True
    watch.until("every machine answers", (SILENT,), 10)
    watch.until("every link answers", (WHOLE, SILENT), 10)

    assert [costly for _, costly in looker.looks] == [False, True]


def test_what_costs_is_looked_at_again_while_it_is_wrong(watch: Watch, looker: FakeLooker) -> None:
    looker.shows = [lacks("coreos-1", broken="/a.png")] * 2 + [lacks("coreos-1"), FINE]

    watch.until("every link answers, and every machine", (WHOLE, SILENT), 10)

    assert [costly for _, costly in looker.looks] == [True, True, True, False]


def test_a_look_without_what_costs_is_not_enough_for_who_needs_it(watch: Watch, looker: FakeLooker) -> None:
    """As after a scenario that changed something: it left looks that walked no site."""
    watch.fresh = True
    watch.settled()
    watch.fresh = False
    looker.shows = [lacks(broken="/a.png")]

    with pytest.raises(RuleBroken, match=r"/a\.png"):
        watch.until("every link answers", (WHOLE,), 0)
    assert [costly for _, costly in looker.looks] == [False, True]


# -- what is asked for -----------------------------------------------------------------------------------------------


def test_others_are_those_that_nobody_asked_for_by_name(watch: Watch) -> None:
    assert watch.others() == list(RULES)
    watch.until("every machine answers", (SILENT, SHARED), 10)
    watch.until("every unit keeps running", (KEEPS,), 1)

    assert set(watch.others()) == {VIEWS, RUNS, WHOLE}


def test_that_all_is_settled_is_no_question_by_name(watch: Watch) -> None:
    """What no step names is judged once more at the end, when nothing changes any more."""
    watch.settled()

    assert len(watch.others()) == len(RULES)


@pytest.mark.parametrize("shows", [lacks("coreos-1"), lacks(same_ids=True), lacks(active="failed")])
def test_after_a_change_every_rule_holds_soon(watch: Watch, looker: FakeLooker, clock: FakeClock, shows: Shows) -> None:
    watch.fresh, looker.shows = True, [shows] * 6 + [FINE]
    watch.settled()
    assert [costly for _, costly in looker.looks] == [False] * 7

    looker.shows = [shows]
    watch.changed()
    with pytest.raises(RuleBroken, match=f"all is as it must be: not within {SETTLE:g} s"):
        watch.settled()
    assert clock.now == 1000 + 6 * EVERY + SETTLE


def test_look_of_just_now_serves_who_asks_next(watch: Watch, looker: FakeLooker, clock: FakeClock) -> None:
    watch.fresh = True
    watch.until("every machine answers", (SILENT,), 10)
    clock.now += HOLDS / 2
    watch.until("every unit runs", (RUNS,), 10)
    watch.settled()
    assert len(looker.looks) == 1

    clock.now += HOLDS
    watch.settled()
    assert len(looker.looks) == 2
    watch.changed()
    watch.settled()
    assert len(looker.looks) == 3


def test_look_of_just_now_that_shows_something_wrong_is_taken_again(watch: Watch, looker: FakeLooker) -> None:
    watch.fresh, looker.shows = True, [lacks(active="failed"), FINE]
    watch.until("every machine answers", (SILENT,), 10)

    watch.until("every unit runs", (RUNS,), 10)

    assert len(looker.looks) == 2


@pytest.mark.parametrize("within", [3.0, 30.0])
def test_what_has_to_settle_has_the_seconds_that_are_said(
    watch: Watch, looker: FakeLooker, clock: FakeClock, within: float
) -> None:
    watch.fresh, looker.shows = True, [lacks("coreos-1")]

    with pytest.raises(RuleBroken, match=f"all is as it must be: not within {within:g} s"):
        watch.settled(within)
    assert clock.now == 1000 + within


def test_the_last_look_is_told_whatever_was_changed_since(watch: Watch, looker: FakeLooker) -> None:
    first = watch.last
    watch.changed()

    assert watch.last is first and len(looker.looks) == 1
    assert watch.anew() is watch.last is not first


def test_behind_what_failed_all_may_be_well_again_and_no_other_cause_is_told(
    watch: Watch, looker: FakeLooker, clock: FakeClock, events: Events
) -> None:
    watch.fresh, looker.shows = True, [lacks("coreos-1"), lacks(active="failed"), FINE]
    watch.anew()
    # what was looked at before tells nothing
    assert watch.is_well(within=60) and len(looker.looks) == 3

    looker.shows, before = [lacks("coreos-1")], clock.now
    assert not watch.is_well(within=60) and clock.now == before + 60
    assert events("causes") == []
    assert [wait["outcome"] for wait in events("wait.ended")] == ["reached", "expired"]


def test_what_failed_and_was_put_back_stays_a_cause_when_more_is_found(
    watch: Watch, looker: FakeLooker, events: Events
) -> None:
    def told() -> list[str]:
        return [cause["finding"]["about"] for cause in events("causes")[-1]["causes"]]

    def breaks(*shows: Shows) -> None:
        looker.shows = list(shows)
        watch.changed()
        with pytest.raises(RuleBroken):
            watch.settled(1)

    watch.fresh = True
    breaks(lacks("coreos-1"))
    breaks(lacks("coreos-0"))
    assert told() == ["machine coreos-0"]
    looker.shows = [FINE]
    assert watch.is_well(within=60)
    for shows in (lacks("coreos-1"), lacks("coreos-0", "coreos-1")):
        breaks(shows)
        assert told() == ["machine coreos-0", "machine coreos-1"]


def test_what_stays_holds_on_end(watch: Watch, looker: FakeLooker, clock: FakeClock) -> None:
    """What came and went is seen again until it stays away."""
    watch.fresh, looker.takes = True, 1.0
    looker.shows = [FINE, FINE, lacks(active="failed"), FINE]

    watch.stays(2.0, within=60)

    assert [when for when, _ in looker.looks] == [1000, 1001, 1002, 1003, 1004, 1005]
    assert len(watch.others()) == len(asked_for())


def test_what_began_again_has_not_stayed(watch: Watch, looker: FakeLooker) -> None:
    """It is compared with how it was when the seconds began, and they begin anew with it."""
    watch.fresh, looker.takes = True, 1.0
    looker.shows = [FINE, FINE, lacks(pid=8)]

    watch.stays(2.0, within=60)

    assert [when for when, _ in looker.looks] == [1000, 1001, 1002, 1003, 1004, 1005]


def test_what_comes_and_goes_does_not_stay(watch: Watch, looker: FakeLooker, clock: FakeClock) -> None:
    watch.fresh, looker.takes = True, 1.0
    looker.shows = [FINE, lacks("coreos-1")] * 20

    with pytest.raises(RuleBroken, match="all stays as it must be: not within 6 s"):
        watch.stays(2.0, within=6)


def test_what_costs_is_not_looked_at_after_each_change(watch: Watch, looker: FakeLooker) -> None:
    watch.fresh, looker.shows = True, [lacks(broken="/a.png")]

    watch.settled()


def test_what_is_broken_on_purpose_is_no_finding_while_that_lasts(watch: Watch, looker: FakeLooker) -> None:
    looker.shows = [lacks("coreos-1")]
    watch.fresh = True
    with watch.expecting((SILENT, Subject("machine", "", "coreos-1"))):
        watch.until("every machine answers", (SILENT,), 0)
        looker.shows = [lacks("coreos-0", "coreos-1")]
        watch.changed()
        with pytest.raises(RuleBroken, match="machine coreos-0"):
            watch.until("every machine answers", (SILENT,), 0)

    looker.shows = [lacks("coreos-1")]
    watch.changed()
    with pytest.raises(RuleBroken, match="machine coreos-1"):
        watch.until("every machine answers", (SILENT,), 0)


def test_what_is_broken_on_purpose_is_a_finding_again_when_that_went_wrong(watch: Watch, looker: FakeLooker) -> None:
    looker.shows = [lacks("coreos-1")]
    with pytest.raises(OSError), watch.expecting((SILENT, Subject("machine", "", "coreos-1"))):
        raise OSError

    with pytest.raises(RuleBroken):
        watch.until("every machine answers", (SILENT,), 0)


# -- snapshots in the record -----------------------------------------------------------------------------------------


def test_of_a_wait_the_first_look_that_shows_something_and_the_last_are_kept(
    watch: Watch, looker: FakeLooker, tmp_path: Path, events: Events
) -> None:
    looker.shows = [lacks("coreos-1")] * 3 + [FINE]

    watch.until("every machine answers", (SILENT,), 10)

    assert recorded(tmp_path) == [1, 4]
    assert [(Path(it["path"]).name, it["about"]) for it in events("artefact")] == [
        ("0001.json", "look 1"),
        ("0004.json", "look 4"),
    ]
    assert [it["number"] for it in events("look")] == [1, 2, 3, 4]


def test_a_look_that_is_first_and_last_is_kept_once(watch: Watch, looker: FakeLooker, tmp_path: Path) -> None:
    looker.shows = [lacks("coreos-1")]
    with pytest.raises(RuleBroken):
        watch.until("every machine answers", (SILENT,), 0)

    assert recorded(tmp_path) == [1]


def test_where_nothing_is_wrong_the_last_look_is_kept_at_the_end(watch: Watch, tmp_path: Path, events: Events) -> None:
    watch.until("every machine answers", (SILENT,), 10)
    watch.changed()
    watch.until("every machine answers", (SILENT,), 10)
    watch.changed()
    assert not (tmp_path / "snapshots").exists()

    watch.end()
    watch.end()

    assert recorded(tmp_path) == [2]
    assert len(events("artefact")) == 1


def test_who_did_not_look_keeps_nothing(watch: Watch, tmp_path: Path) -> None:
    watch.end()

    assert not (tmp_path / "snapshots").exists()


def test_looks_go_on_from_those_that_others_took(
    looker: FakeLooker, recorder: Recorder, tmp_path: Path, clock: FakeClock, events: Events
) -> None:
    Watch(lambda: cast("Looker", looker), recorder, tmp_path, clock, taken=7).diagnose()

    assert recorded(tmp_path) == [8] and [it["look"] for it in events("causes")] == [8]


def test_a_look_comes_back_from_the_record(watch: Watch, tmp_path: Path) -> None:
    first = watch.first
    watch.end()

    assert module.recorded(tmp_path, 1) == first


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "its snapshot is not on record"),
        ("", "its snapshot cannot be read"),
        ('{"schema": "platform.snapshot/1", "number": 1, "asked"', "its snapshot cannot be read"),
        ('{"schema": "platform.snapshot/9"}', "a snapshot of schema platform.snapshot/9"),
        ('{"schema": "platform.snapshot/1", "number": 1}', "missing required field"),
        ("[]", "its snapshot cannot be read"),
    ],
)
def test_a_look_that_cannot_be_had_says_why(tmp_path: Path, text: str | None, why: str) -> None:
    if text is not None:
        path = module.snapshot_file(tmp_path, 1)
        path.parent.mkdir()
        path.write_text(text)

    assert why in str(module.recorded(tmp_path, 1))


def test_snapshot_stays_one_whatever_is_masked(watch: Watch, looker: FakeLooker, tmp_path: Path) -> None:
    """A quote behind a secret ends it in the text, and not in the JSON."""
    looker.shows = [lacks("coreos-1", broken='/a?"NAME_KEY=told-by-its-name" and -----BEGIN PRIVATE KEY----- x')]
    with pytest.raises(RuleBroken):
        watch.until("every machine answers", (SILENT,), 0)

    (path,) = (tmp_path / "snapshots").iterdir()
    walks = decode(path.read_bytes()).outside.walks
    assert walks is not None and walks["blog"].broken == ('/a?"NAME_KEY=[masked]" and [private key]',)


def test_no_secret_is_in_a_snapshot(watch: Watch, looker: FakeLooker, tmp_path: Path, redact: Redactor) -> None:
    redact.add("token", "very-secret-words")
    looker.shows = [lacks("coreos-1", broken="/very-secret-words.png")]
    with pytest.raises(RuleBroken):
        watch.until("every machine answers", (SILENT,), 0)

    (path,) = (tmp_path / "snapshots").iterdir()
    assert json.loads(path.read_text())["outside"]["walks"]["blog"]["broken"] == ["/[token].png"]


def test_of_a_long_wait_the_first_look_and_the_newest_are_judged(
    watch: Watch, looker: FakeLooker, clock: FakeClock
) -> None:
    """A unit that was started again at the beginning of a long wait is still one."""
    looker.shows = [lacks("coreos-0"), *[lacks("coreos-0", pid=8)] * (KEPT + 30), lacks(pid=8)]
    watch.until("every machine answers", (SILENT,), 600)

    assert len(watch._looks) == KEPT + 1
    with pytest.raises(RuleBroken, match="started again"):
        watch.until("every unit keeps running", (KEEPS,), 0)


@pytest.mark.parametrize(("ago", "shown"), [(3600, 3600), (40 * 3600, JOURNAL), (None, JOURNAL)])
def test_journals_are_looked_at_since_all_was_well_and_a_day_at_most(
    looker: FakeLooker, recorder: Recorder, tmp_path: Path, clock: FakeClock, ago: float | None, shown: float
) -> None:
    now = time.time()
    since = 0.0 if ago is None else now - ago
    watch = Watch(lambda: cast("Looker", looker), recorder, tmp_path, clock, since=since)

    watch.until("every machine answers", (SILENT,), 10)

    assert looker.since == pytest.approx(now - shown, abs=5)


# -- diagnose --------------------------------------------------------------------------------------------------------


def test_a_diagnosis_tells_the_causes_and_keeps_its_look(
    watch: Watch, looker: FakeLooker, tmp_path: Path, document: Callable[[], dict[str, Any]]
) -> None:
    looker.shows = [lacks(active="failed", broken="/a.png")]

    found = watch.diagnose()

    assert [cause.finding.rule for cause in found] == [WHOLE, RUNS]
    run = document()
    assert [cause["finding"]["about"] for cause in run["causes"]] == ["site blog", "unit blog.service on coreos-1"]
    assert [costly for _, costly in looker.looks] == [True]
    assert recorded(tmp_path) == [1] and run["waits"] == []


def test_a_cause_that_is_made_on_purpose_is_no_answer(watch: Watch, looker: FakeLooker) -> None:
    looker.shows = [lacks(active="failed", broken="/a.png")]

    with watch.making([(RUNS, "unit blog.service on coreos-1")]), watch.making([("other", "x")]):
        assert [cause.finding.rule for cause in watch.diagnose()] == [WHOLE]
    assert [cause.finding.rule for cause in watch.diagnose()] == [WHOLE, RUNS]


def test_what_follows_from_what_is_broken_on_purpose_and_was_to_hold_is_the_cause(
    watch: Watch, looker: FakeLooker, document: Callable[[], dict[str, Any]]
) -> None:
    """The machine that a scenario took away is no answer, and no reason for a status of its own."""
    looker.shows = [lacks("coreos-0", broken="/a.png: 503")]

    with watch.making([(SILENT, "machine coreos-0")]), pytest.raises(RuleBroken) as raised:
        watch.until("every link answers", (WHOLE,), 2)

    assert raised.value.where == "site blog"
    assert [cause["finding"]["rule"] for cause in document()["causes"]] == [WHOLE]


def test_causes_that_are_made_end_in_any_order(watch: Watch, looker: FakeLooker) -> None:
    looker.shows = [lacks(active="failed", broken="/a.png")]
    grows = [("x", "y")]
    one, other = watch.making(grows), watch.making([(RUNS, "unit blog.service on coreos-1")])
    one.__enter__()
    grows.append(("z", "added by a later step"))
    other.__enter__()
    one.__exit__(None, None, None)
    assert [cause.finding.rule for cause in watch.diagnose()] == [WHOLE]
    other.__exit__(None, None, None)
    assert [cause.finding.rule for cause in watch.diagnose()] == [WHOLE, RUNS]


def test_a_diagnosis_waits_for_what_only_a_later_look_can_tell(
    watch: Watch, looker: FakeLooker, clock: FakeClock, tmp_path: Path
) -> None:
    looker.shows = [lacks(sees_less=("coreos-1",))]

    (cause,) = watch.diagnose()

    assert cause.finding.rule == VIEWS and clock.now == 1000 + FLEET_LAG
    assert recorded(tmp_path) == [len(looker.looks)]


def test_a_diagnosis_has_an_end(watch: Watch, looker: FakeLooker, clock: FakeClock) -> None:
    looker.shows = [lacks(sees_less=(name,)) for name in NAMES * 100]

    assert watch.diagnose() == ()
    assert clock.now == 1000 + FLEET_LAG + 1


def test_every_look_of_a_diagnosis_has_its_end(watch: Watch, looker: FakeLooker) -> None:
    """A machine may freeze between the first look and the next."""
    looker.shows = [lacks(sees_less=("coreos-1",))]
    watch.diagnose(12.0)

    assert len(looker.within) > 1 and set(looker.within) == {12.0}


def test_what_nobody_could_see_is_in_the_record(watch: Watch, events: Events) -> None:
    watch.diagnose()

    (look,) = events("look")
    assert look["unseen"] == ["Terraform's plan (not asked)", "the kernel's log (asked, no answer)"]
    assert look["silent"] == []


def test_where_nothing_is_wrong_a_diagnosis_says_so(
    watch: Watch, looker: FakeLooker, document: Callable[[], dict[str, Any]]
) -> None:
    looker.shows = [lacks("coreos-1"), FINE]
    with pytest.raises(RuleBroken):
        watch.until("every machine answers", (SILENT,), 0)

    assert watch.diagnose() == ()
    assert document()["causes"] == []


# -- names -----------------------------------------------------------------------------------------------------------

INJECTED = "what was injected is named, and nothing else"
BLOG_FAILED = (RUNS, "unit blog.service on coreos-1")


def test_what_is_named_alone_is_right(watch: Watch, looker: FakeLooker, clock: FakeClock, events: Events) -> None:
    looker.shows = [lacks(active="failed", broken="/a.png")]
    watch.names(INJECTED, [BLOG_FAILED, (WHOLE, "site blog")], 20)

    assert clock.slept == [] and [costly for _, costly in looker.looks] == [True]
    (started,), (ended,) = events("wait.started"), events("wait.ended")
    assert (started["what"], started["within"], ended["outcome"]) == (INJECTED, 20, "reached")


def test_what_is_not_named_yet_is_looked_for_again(watch: Watch, looker: FakeLooker, clock: FakeClock) -> None:
    looker.shows = [FINE, FINE, lacks(active="failed")]

    watch.names(INJECTED, [BLOG_FAILED], 20)

    assert clock.slept == [EVERY] * 2


def test_causes_are_named_and_what_they_explain_is_not(watch: Watch, looker: FakeLooker) -> None:
    looker.shows = [lacks("coreos-0", active="failed")]

    watch.names(INJECTED, [(SILENT, "machine coreos-0")], 20)


def test_what_was_seen_before_is_not_what_was_injected(watch: Watch, looker: FakeLooker) -> None:
    watch.until("every machine answers", (SILENT,), 10)
    looker.shows = [lacks(active="failed")]

    watch.names(INJECTED, [BLOG_FAILED], 0)


@pytest.mark.parametrize(
    ("shows", "named"),
    [
        (FINE, "nothing"),
        (lacks("coreos-1"), "machine coreos-1: expected an answer over SSH, seen timed out"),
        (lacks(active="failed", broken="/a.png"), "site blog: .*; unit blog.service on coreos-1: .*"),
    ],
    ids=["nothing", "something else", "something more"],
)
def test_what_is_named_otherwise_is_wrong(
    watch: Watch, looker: FakeLooker, clock: FakeClock, events: Events, shows: Shows, named: str
) -> None:
    looker.shows = [shows]

    with pytest.raises(WaitExpired, match=f"^{INJECTED}: named is {named}") as raised:
        watch.names(INJECTED, [BLOG_FAILED], 20)

    assert raised.value.status is ExitStatus.PLATFORM_WRONG and clock.now == 1020
    assert raised.value.expected == "unit blog.service on coreos-1" and str(raised.value).endswith(raised.value.seen)
    assert events("wait.ended")[-1]["outcome"] == "expired"


def test_what_only_a_later_look_can_tell_is_waited_for_before_all_is_named(
    watch: Watch, looker: FakeLooker, clock: FakeClock
) -> None:
    """At the first look nothing else counts yet."""
    looker.shows = [lacks(active="failed", sees_less=("coreos-1",))]

    with pytest.raises(WaitExpired, match=r"fleet on coreos-1: .*; unit blog.service on coreos-1"):
        watch.names(INJECTED, [BLOG_FAILED], 20)
    assert clock.now == 1020


def test_what_is_gone_before_it_counts_is_no_cause(watch: Watch, looker: FakeLooker, clock: FakeClock) -> None:
    looker.shows = [lacks(active="failed", sees_less=("coreos-1",))] * 3 + [lacks(active="failed")]

    watch.names(INJECTED, [BLOG_FAILED], 20)
    assert clock.slept == [EVERY] * 3


def test_what_comes_and_goes_by_other_names_does_not_keep_it_from_ending(
    watch: Watch, looker: FakeLooker, clock: FakeClock
) -> None:
    looker.shows = [lacks(active="failed", sees_less=(name,)) for name in NAMES * 100]

    watch.names(INJECTED, [BLOG_FAILED], 20)
    assert 1020 <= clock.now <= 1020 + FLEET_LAG


def test_what_shows_at_the_end_has_its_time_to_count(watch: Watch, looker: FakeLooker, clock: FakeClock) -> None:
    blog_failed = lacks(active="failed", sees_less=("coreos-0",))
    looker.shows = [blog_failed] * 2 + [lacks(active="failed", sees_less=("coreos-1",))]

    with pytest.raises(WaitExpired, match="fleet on coreos-1: "):
        watch.names(INJECTED, [BLOG_FAILED], 1)
    assert clock.now >= 1001 + FLEET_LAG - 1


def test_same_thing_by_another_rule_is_not_what_was_injected(watch: Watch, looker: FakeLooker) -> None:
    looker.shows = [lacks(active="failed")]

    with pytest.raises(WaitExpired):
        watch.names(INJECTED, [(KEEPS, "unit blog.service on coreos-1")], 1)


def test_patience_is_for_names_too(
    watch: Watch, looker: FakeLooker, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATIENCE", "3")

    with pytest.raises(WaitExpired):
        watch.names(INJECTED, [BLOG_FAILED], 2)
    assert clock.now == 1006


def test_look_that_fails_is_no_name_that_was_late(watch: Watch, looker: FakeLooker, events: Events) -> None:
    looker.shows = [FINE, EnvironmentFailed("the engine does not answer")]

    with pytest.raises(EnvironmentFailed):
        watch.names(INJECTED, [BLOG_FAILED], 20)
    assert events("wait.ended")[-1]["outcome"] == "failed"


def test_a_broken_rule_is_the_platforms_fault() -> None:
    assert issubclass(RuleBroken, PlatformWrong)


def test_diagnosis_looks_again_for_what_only_a_later_look_can_tell_however_long_the_first_took(
    watch: Watch, looker: FakeLooker
) -> None:
    looker.seconds, looker.shows = 7.0, [Shows(sees_less=("coreos-1",))]

    assert [cause.finding.rule for cause in watch.diagnose()] == ["fleet-views-agree"]
    assert len(looker.looks) >= 2
