"""The verdict: the one exit status, and the one screen, that a run earns."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest

from harness.errors import ExitStatus
from harness.record.log import NOTHING_CHOSEN, fold
from harness.reports.verdict import (
    HEADLINES,
    IN_PART,
    LAYER_OF_TAG,
    LAYERS,
    NOT_CLEAN,
    NOTHING_WRONG,
    RULE_BROKEN,
    for_programs,
    judge,
    screen,
)
from harness.rules import finding
from harness.runs.watch import RuleBroken
from harness.text import SLOW

README = ["cp terraform.example.tfvars terraform.tfvars", "fleetctl list-machines"]
Document = dict[str, Any]


def step(outcome: str = "passed", error: Document | None = None, text: str = "every unit is active") -> Document:
    return {"keyword": "Then", "text": text, "line": 12, "outcome": outcome, "error": error}


def scenario(outcome: str = "passed", *steps: Document, at: float = 50, reason: str = "", **fields: Any) -> Document:
    return {
        "id": "s", "feature": "features/06_start.feature", "feature_title": "6. Start", "title": "The services start",
        "line": 8, "tags": ["start", "mutates"], "steps": list(steps or (step(outcome),)), "started": at - 1,
        "ended": None if outcome == "interrupted" else at, "outcome": outcome, "reason": reason, "error": None,
        **fields,
    }  # fmt: skip


def stage(name: str, outcome: str = "passed", at: float = 10, status: int = 3, error: str | None = None) -> Document:
    return {"stage": name, "outcome": outcome, "started": at - 1, "ended": at, "error": error, "status": status}


def run(*scenarios: Document, stages: list[Document] | None = None, **fields: Any) -> Document:
    whole = [stage("setup", at=1), stage("ground", at=2), stage("runbook", at=90), stage("teardown", at=99)]
    return {
        "scenarios": list(scenarios), "stages": whole if stages is None else stages, "readme": README,
        "selection": None, "target": "local", "run_id": "20260801-120000-ab12", "cluster": "20260801-120000-ab12",
        "fingerprints": [], "facts": {},
        "commands": [{"line": line, "typed": True} for line in README] + [{"line": None, "typed": False}],
        "causes": [], "journal": [], "leaks": [], "tasks": [], "notes": [], "looks": [], "last_event": 100.0,
        "remedies": {},
        "folder": ".runs/20260801-120000-ab12",
        **fields,
    }  # fmt: skip


def fault(status: int, **fields: str) -> Document:
    asked = {"kind": "WaitExpired", "message": "m", "expected": "", "seen": "", "where": "", "paste": ""}
    return {**asked, "status": status, **fields}


def failed(status: int, at: float = 50, **fields: Any) -> Document:
    return scenario("failed", step("failed", fault(status, **fields)), at=at)


def found(layer: str = "bootstrap", about: str = "etcd on coreos-2", **fields: Any) -> Document:
    return {
        "rule": "system-unit-runs", "layer": layer, "subject": ["etcd", "", "coreos-2"], "about": about,
        "expected": "etcd.service active", "seen": "systemd says failed (failed), exit status 1",
        "first_seen": NOON + 4, "since": NOON,
        "paste": "ssh -F ssh_config coreos-2 'systemctl status etcd.service'", **fields,
    }  # fmt: skip


def cause(layer: str = "bootstrap", *consequences: Document, **fields: Any) -> Document:
    return {"finding": found(layer, **fields), "consequences": list(consequences)}


def line(seconds: float, text: str, machine: str = "coreos-2") -> Document:
    """Of a journal, so many seconds after noon."""
    return {"machine": machine, "time": NOON + seconds, "text": text}


def broke_rules(at: float = 50, **fields: Any) -> Document:
    """A scenario whose step found that rules do not hold."""
    asked: Document = {"kind": "RuleBroken", "layer": "unit", "seen": "told by the causes"}
    return failed(1, at=at, **{**asked, **fields})


NOON = 1785585600.0
LEAK = {"what": "container", "name": "platform-x-coreos-0", "removed": True, "t": 98.0}
UNEXPLAINED = scenario("not_run", reason="not reached")
LEFT_OUT = scenario("not_run", reason="changes something, and this run changes nothing")
FACTS = {"boot of coreos-0": "8c1f 17", "etcd's lasting keys": "12 keys, the newest of index 345"}
# a check on a cluster that stands: it makes no ground and removes nothing
CHECK = [stage("setup", at=1), stage("runbook", at=90)]


def checked(*scenarios: Document, **changed: str | None) -> Document:
    """A run that changes nothing, at whose end these facts are others (None: there is none of that name)."""
    after = {name: value for name, value in {**FACTS, **changed}.items() if value is not None}
    facts = [{"facts": FACTS, "t": 3.0}, {"facts": after, "t": 89.0}]
    return run(*scenarios, LEFT_OUT, stages=CHECK, commands=[], fingerprints=facts)


# -- the exit status -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "status"),
    [
        pytest.param(run(failed(1)), 1, id="the platform is wrong"),
        pytest.param(run(failed(3)), 3, id="the harness is wrong"),
        pytest.param(run(failed(4)), 4, id="the configuration is wrong"),
        pytest.param(run(failed(6)), 6, id="the environment failed"),
        pytest.param(run(scenario("error", step(), error=fault(6))), 6, id="a fixture met the environment"),
        pytest.param(run(scenario("failed", step("failed"))), 3, id="a failure that says nothing"),
        pytest.param(run(scenario("failed", step("failed", {}))), 3, id="a failure that says nothing at all"),
        pytest.param(run(stages=[stage("setup", "failed", status=6)]), 6, id="set-up met the environment"),
        pytest.param(run(stages=[stage("setup", "failed", status=4)]), 4, id="set-up needs the person"),
        pytest.param(run(stages=[stage("runbook", "failed", status=3)]), 3, id="pytest fell over"),
        pytest.param(run(scenario(), leaks=[LEAK]), 6, id="a leak"),
        pytest.param(run(scenario(), leaks=[{**LEAK, "removed": False}]), 6, id="a leak that stays"),
        pytest.param(run(scenario(), commands=[]), 1, id="drift: nothing typed"),
        pytest.param(run(scenario(), readme=[*README, "ls"]), 1, id="drift: README has more"),
        pytest.param(run(scenario(), readme=README[:1]), 1, id="drift: README has less"),
        pytest.param(run(scenario(), readme=README[::-1]), 1, id="drift: another order"),
        pytest.param(run(), 5, id="no scenario"),
        pytest.param(run(scenario("not_run", reason="needs a tunnel")), 5, id="all left out"),
        pytest.param(run(scenario(), UNEXPLAINED), 3, id="not run, and nobody says why"),
        pytest.param(run(scenario(), scenario("not_run", reason="")), 3, id="not run, without a word"),
        pytest.param(run(scenario(), scenario("not_run", reason="needs a tunnel")), 0, id="left out for a reason"),
        pytest.param(run(scenario(), scenario()), 0, id="all passed"),
    ],
)
def test_each_kind_of_end_has_its_status(document: Document, status: int) -> None:
    verdict = judge(document)

    assert verdict.status == status
    judged = bool(document["leaks"])  # the platform was, before its teardown
    in_part = status == 0 and len(verdict.counts) > 1
    headline = verdict.headline.partition(":")[0] if status == 5 else verdict.headline  # which goes on with why
    assert headline == (NOT_CLEAN if judged else IN_PART if in_part else HEADLINES[ExitStatus(status)])
    assert bool(verdict.faults) == (status not in (0, 5))


def test_every_status_has_a_headline() -> None:
    assert set(HEADLINES) == set(ExitStatus)
    assert len({*HEADLINES.values(), NOT_CLEAN, IN_PART}) == len(ExitStatus) + 2


def test_an_interruption_comes_before_every_fault() -> None:
    interrupted = [stage("setup"), stage("runbook", "interrupted", at=60), stage("teardown", at=99)]

    assert judge(run(failed(1), stages=interrupted)).status == 2
    assert judge(run(failed(6), scenario("interrupted"), stages=interrupted, leaks=[LEAK])).status == 2
    assert judge(run(stages=[stage("setup", "interrupted")])).status == 2
    assert judge(run(scenario(), stages=[*interrupted[:1], stage("teardown", "interrupted")])).status == 2


def test_a_scenario_that_never_ended_is_the_harness_fault_when_nobody_interrupted() -> None:
    assert judge(run(scenario("interrupted", step("interrupted")))).status == 3


@pytest.mark.parametrize("first", [1, 3, 4, 6])
@pytest.mark.parametrize("second", [1, 3, 4, 6])
def test_the_first_fault_in_time_decides(first: int, second: int) -> None:
    verdict = judge(run(failed(second, at=60), failed(first, at=40)))

    assert verdict.status == first
    assert [found.status for found in verdict.faults] == [first, second]


def test_a_fault_of_the_platform_comes_before_the_leak_that_follows() -> None:
    verdict = judge(run(failed(1), leaks=[LEAK], readme=[*README, "ls"]))

    assert verdict.status == 1
    assert [found.status for found in verdict.faults] == [1, 6]


def test_a_stage_that_failed_before_a_scenario_comes_first() -> None:
    assert judge(run(failed(1), stages=[stage("ground", "failed", at=5, status=6)])).status == 6
    assert judge(run(failed(1, at=50), stages=[stage("teardown", "failed", at=99, status=6)])).status == 1


def test_a_teardown_that_failed_is_not_hidden_by_scenarios_that_passed() -> None:
    stages = [stage("runbook"), stage("teardown", "failed", at=99, status=6, error="the Docker Engine does not answer")]

    assert judge(run(scenario(), stages=stages)).status == 6


def test_a_broken_environment_is_not_blamed_on_the_platform() -> None:
    broken = [cause("environment"), cause("environment")]

    assert judge(run(failed(1), causes=broken)).status == 6
    assert judge(run(failed(1), causes=broken)).headline == HEADLINES[ExitStatus.ENVIRONMENT_FAILED]
    assert judge(run(failed(3), causes=broken)).status == 3
    assert judge(run(failed(4), causes=broken)).status == 4
    assert judge(run(scenario(), causes=broken)).status == 0
    interrupted = [stage("runbook", "interrupted")]
    assert judge(run(failed(1), causes=broken, stages=interrupted)).status == 2


@pytest.mark.parametrize(
    "layers", [("unit",), ("environment", "unit"), ("unit", "config"), ("environment", "config")], ids="-".join
)
def test_a_platform_that_is_wrong_is_not_excused_by_what_else_is(layers: tuple[str, ...]) -> None:
    assert judge(run(failed(1), causes=list(map(cause, layers)))).status == 1
    first = 1 if "unit" in layers else 6
    assert judge(run(failed(6), failed(1, at=60), causes=list(map(cause, layers)))).status == first


def test_a_failure_explains_what_stands_on_it() -> None:
    left_out = scenario("not_run", reason='stands on "The services start", which failed', at=60)
    verdict = judge(run(failed(1), left_out, commands=[]))

    assert (verdict.status, len(verdict.faults)) == (1, 1)
    assert verdict.counts == {"failed": 1, "not_run": 1}


def test_a_selection_need_not_type_the_whole_runbook() -> None:
    assert judge(run(scenario(), commands=[], selection=["features/01.feature"], cluster="kept")).status == 0


def test_what_was_left_out_of_a_run_that_builds_is_compared_with_nothing_and_the_rest_is() -> None:
    def typing(number: int, **fields: Any) -> Document:
        typed = {**step(text=f"the operator runs `{README[number]}`"), "keyword": "When"}
        return scenario("passed", typed, **fields)

    left_out = {**typing(1), "outcome": "not_run", "reason": "left out: something else was chosen"}
    typed = [{"line": README[0], "typed": True}]
    chosen = run(typing(0), left_out, commands=typed, selection=["-m", "builds"])

    assert (judge(chosen).status, judge(chosen).headline) == (0, IN_PART)
    other = [{"line": "cp elsewhere", "typed": True}]
    assert judge({**chosen, "commands": other}).status == 1


def test_slow_scenarios_that_nobody_chose_leave_a_run_whole_and_are_told() -> None:
    slow = scenario("not_run", reason=SLOW)
    whole, in_part = run(scenario(), slow, slow), run(scenario(), slow, scenario("not_run", reason="needs a tunnel"))

    assert judge(whole).headline == HEADLINES[ExitStatus.VERIFIED] and judge(in_part).headline == IN_PART
    assert "scenarios  2 not run, 1 passed (2 left to `make recovery`)" in screen(whole, judge(whole))
    assert "(1 left to " in screen(in_part, judge(in_part))
    assert "left to" not in screen(run(scenario()), judge(run(scenario())))
    assert judge(run(slow)).status == ExitStatus.NOTHING_VERIFIED


@pytest.mark.parametrize(
    ("reasons", "fields", "why"),
    [
        (["changes something, and this run changes nothing"], {}, "changes something, and this run changes nothing"),
        (["needs a tunnel", SLOW, SLOW, "x"], {}, f"{SLOW} (and 2 more reasons: see the report)"),
        ([SLOW, SLOW, "needs a tunnel"], {}, f"{SLOW} (and 1 more reason: see the report)"),
        (
            [],
            {"facts": {NOTHING_CHOSEN: "line 16 of features/08_site.feature is in no scenario"}, "selection": ["x"]},
            "line 16 of features/08_site.feature is in no scenario",
        ),
        ([], {"selection": ["-k", "nosuch"]}, "-k nosuch chooses no scenario"),
        ([], {}, "there is no scenario"),
    ],
)
def test_where_nothing_was_verified_it_says_why(reasons: list[str], fields: Document, why: str) -> None:
    document = run(*(scenario("not_run", reason=reason) for reason in reasons), **fields)
    verdict = judge(document)

    assert (verdict.status, verdict.headline) == (5, f"Nothing was verified: {why}")
    assert f"Nothing was verified: {why}  (exit status 5)" in screen(document, verdict)


@pytest.mark.parametrize(
    ("seen", "told"),
    [("page / has 3 broken links", "page / has 3 broken links"), ("answers 503", "site-links-are-whole")],
)
def test_a_consequence_never_reads_as_its_cause(seen: str, told: str) -> None:
    of_cause = {"about": "site blog", "seen": "answers 503", "rule": "site-answers"}
    other = found("entry", "site blog", seen=seen, rule="site-links-are-whole")
    document = run(broke_rules(), causes=[cause("content", other, found("entry", "name blog"), **of_cause)])

    assert f"  so also    2 consequences: site blog: {told}, name blog" in screen(document, judge(document))


def test_a_run_that_failed_must_not_have_typed_something_else_before() -> None:
    typed = [{"line": "cp terraform.example.tfvars elsewhere", "typed": True}]
    verdict = judge(run(failed(1), commands=typed))

    assert len(verdict.faults) == 2
    assert "executed was `cp terraform.example.tfvars elsewhere`" in verdict.faults[1].seen


# -- commands that were to be typed --------------------------------------------------------------------------------

DRIFT = "README, features and what was executed differ"
OF_A_REASON, OF_A_FAILURE = "needs a name server", 'stands on "The services start", which failed'


def typing(*lines: str, outcome: str = "passed", reason: str = OF_A_REASON, at: float = 50) -> Document:
    """A scenario that types these commands; one that failed did so at the last of them."""
    steps = [step(text=f"the operator runs `{line}` within 60 seconds") for line in lines]
    steps = [step("not_run" if outcome == "not_run" else "passed", text="a plan was made"), *steps]
    if outcome == "failed":
        steps[-1] |= {"outcome": "failed", "error": fault(1)}
    return scenario(outcome, *steps, reason=reason if outcome == "not_run" else "", at=at)


def drifts(readme: str, typed: str, *scenarios: Document, **fields: Any) -> list[str]:
    """What is said of a run whose README has these commands (a letter each), and where those were typed."""
    commands = [{"line": line, "typed": True} for line in typed]
    verdict = judge(run(*scenarios, readme=list(readme), commands=commands, **fields))
    return [found.seen for found in verdict.faults if found.title == DRIFT]


def left_out(*lines: str, reason: str = OF_A_REASON) -> Document:
    return typing(*lines, outcome="not_run", reason=reason)


@pytest.mark.parametrize(
    ("typed", "scenarios", "said"),
    [
        pytest.param(
            "abd",
            [typing("a"), left_out("b"), left_out("c"), typing("d")],
            "command 2 of the runbook is `d`, executed was `b`",
            id="one that was left out",
        ),
        pytest.param(
            "ax",
            [typing("a"), left_out("b", "c"), typing("d")],
            "command 2 of the runbook is `d`, executed was `x`",
            id="another one after those that were left out",
        ),
        pytest.param(
            "ada",
            [typing("a"), left_out("b", "c"), typing("d")],
            "executed, but not in the runbook: `a`",
            id="one more",
        ),
        pytest.param(
            "acbd",
            [typing("a", "b"), typing("c"), typing("d")],
            "command 2 of the runbook is `b`, executed was `c`",
            id="another order, and nothing left out",
        ),
        pytest.param(
            "abc",
            [typing("a", "b"), typing("c"), typing("d")],
            "in the runbook, but not executed: `d`",
            id="one less, and nothing left out",
        ),
    ],
)
def test_commands_that_were_typed_are_those_of_the_scenarios_that_ran(
    typed: str, scenarios: list[Document], said: str
) -> None:
    assert drifts("abcd", typed, *scenarios) == [said]


@pytest.mark.parametrize(
    ("readme", "typed", "scenarios", "said"),
    [
        pytest.param(
            "abc",
            "ac",
            [typing("a"), left_out("x"), typing("c")],
            "command 2 of the runbook is `b`, executed was `c`",
            id="another command",
        ),
        pytest.param(
            "abc",
            "ac",
            [typing("a"), left_out(), typing("c")],
            "command 2 of the runbook is `b`, executed was `c`",
            id="one that no scenario types",
        ),
        pytest.param(
            "abc",
            "ac",
            [typing("a"), typing("c"), left_out("b")],
            "command 2 of the runbook is `b`, executed was `c`",
            id="another order",
        ),
        pytest.param(
            "abc",
            "abx",
            [typing("a", "b"), left_out("c"), typing("x")],
            "command 3 of the runbook is `c`, executed was `x`",
            id="one more than the README has",
        ),
        pytest.param(
            "abc", "ab", [typing("a", "b")], "in the runbook, but not executed: `c`", id="one less, and all passed"
        ),
    ],
)
def test_where_features_and_readme_differ_the_readme_counts_as_a_whole(
    readme: str, typed: str, scenarios: list[Document], said: str
) -> None:
    assert drifts(readme, typed, *scenarios) == [said]


def test_a_run_that_failed_must_not_have_typed_another_command_where_scenarios_were_left_out() -> None:
    ran = [typing("a"), left_out("b"), typing("c", outcome="failed"), left_out("d", reason=OF_A_FAILURE)]

    assert drifts("abcd", "ax", *ran) == ["command 2 of the runbook is `c`, executed was `x`"]


@pytest.mark.parametrize(
    ("typed", "scenarios"),
    [
        pytest.param("ad", [typing("a"), left_out("b", "c"), typing("d")], id="in the middle"),
        pytest.param("bcd", [left_out("a"), typing("b", "c"), typing("d")], id="at the beginning"),
        pytest.param("abc", [typing("a", "b"), typing("c"), left_out("d")], id="at the end"),
        pytest.param("bd", [left_out("a"), typing("b"), left_out("c"), typing("d")], id="several"),
        pytest.param("abcd", [typing("a", "b"), typing("c"), left_out(), typing("d")], id="one that types nothing"),
        pytest.param("abcd", [typing("a", "b", "c", "d")], id="none"),
    ],
)
def test_commands_of_scenarios_that_were_left_out_are_not_missed(typed: str, scenarios: list[Document]) -> None:
    assert drifts("abcd", typed, *scenarios) == []

    commands = [{"line": line, "typed": True} for line in typed]
    assert judge(run(*scenarios, readme=list("abcd"), commands=commands)).status == 0


@pytest.mark.parametrize("typed", ["", "a", "ac"])
def test_a_run_that_failed_may_have_ended_early(typed: str) -> None:
    ran = [typing("a"), left_out("b"), typing("c", outcome="failed"), left_out("d", reason=OF_A_FAILURE)]

    assert drifts("abcd", typed, *ran) == []


def test_what_runs_beside_a_scenario_that_failed_is_still_typed() -> None:
    """Those that stand on it are left out; the others go on."""
    failing = typing("a", outcome="failed", at=40)

    assert drifts("abc", "ac", failing, left_out("b", reason=OF_A_FAILURE), typing("c")) == []


def test_behind_a_scenario_that_failed_and_was_put_back_the_others_are_still_typed() -> None:
    """Its step may have failed before or behind its command, and those behind the step are not typed."""
    failing = typing("b", "c", outcome="failed", at=40)
    failing["steps"].append(step("not_run", text="the operator runs `d`"))

    for typed in ("abce", "abe"):
        assert drifts("abcde", typed, typing("a"), failing, typing("e")) == []
    said = "command 3 of the runbook is `c`, executed was `x`"
    assert drifts("abcde", "abx", typing("a"), failing, typing("e")) == [said]


# -- a cluster that was changed while it was checked ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "after"),
    [
        ("boot of coreos-0", "9d20 18"),
        ("boot of coreos-0", "no answer"),
        ("etcd's lasting keys", "13 keys, the newest of index 346"),
        ("etcd's lasting keys", None),
        ("Terraform's serial", "4"),
    ],
)
def test_a_cluster_that_was_changed_meanwhile_was_not_judged(name: str, after: str | None) -> None:
    verdict = judge(checked(scenario(), **{name: after}))

    assert (verdict.status, verdict.headline) == (6, HEADLINES[ExitStatus.ENVIRONMENT_FAILED])
    (found,) = verdict.faults
    assert found.title == "the cluster was changed while it was checked"
    assert (found.expected, found.seen) == (f"{name}: {FACTS.get(name)}", f"{name}: {after}")


def test_every_change_is_a_fault_of_its_own() -> None:
    verdict = judge(checked(scenario(), **dict.fromkeys(FACTS, "other")))

    assert [found.seen for found in verdict.faults] == [f"{name}: other" for name in sorted(FACTS)]


def test_a_change_is_on_the_screen() -> None:
    document = checked(scenario(), **{"boot of coreos-0": "9d20 18"})

    text = screen(document, judge(document))
    assert "fault      the cluster was changed while it was checked" in text
    assert "expected   boot of coreos-0: 8c1f 17" in text
    assert "seen       boot of coreos-0: 9d20 18" in text


def test_what_others_say_does_not_command_the_terminal() -> None:
    control = "\x1b]0;title\x07\x1b[2Jtold\x9b1A\x07"
    document = checked(failed(1), **{f"boot of {control}": f"9d20 {control}"})
    verdict = judge(document)
    verdict = dataclasses.replace(verdict, headline=f"{verdict.headline}{control}")

    text = screen({**document, "folder": f".runs/{control}", "cluster": control}, verdict)
    assert ".runs/told/report.html" in text and not set(text) & set("\x1b\x9b\x07")


def test_a_change_does_not_hide_the_fault_before_it() -> None:
    verdict = judge(checked(failed(1), **{"boot of coreos-0": "9d20 18"}))

    assert (verdict.status, [found.status for found in verdict.faults]) == (1, [1, 6])


def test_a_change_is_not_taken_for_a_teardown_that_was_not_clean() -> None:
    document = checked(scenario(), **{"boot of coreos-0": "9d20 18"})
    document |= {"scenarios": [scenario()], "selection": ["-m", "start"], "cluster": "kept"}

    assert judge(document).headline == HEADLINES[ExitStatus.ENVIRONMENT_FAILED]


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_cluster_that_stayed_as_it_was_is_no_fault(taken: int) -> None:
    """A run that was cut off has one fingerprint, and nothing to compare it with."""
    document = checked(scenario())
    del document["fingerprints"][taken:]

    assert (judge(document).status, judge(document).faults) == (0, ())


# -- what was verified ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(run(scenario(), selection=["-m", "load"]), id="a selection"),
        pytest.param(run(scenario(), LEFT_OUT), id="left out"),
        pytest.param(checked(scenario()), id="a check"),
    ],
)
def test_a_run_in_part_does_not_say_that_the_whole_runbook_holds(document: Document) -> None:
    assert (judge(document).status, judge(document).headline) == (0, IN_PART)


@pytest.mark.parametrize(
    ("document", "status"),
    [(run(failed(1), selection=["-m", "load"]), 1), (run(LEFT_OUT), 5), (run(selection=["-k", "nothing"]), 5)],
)
def test_a_run_in_part_that_is_not_verified_says_what_every_run_says(document: Document, status: int) -> None:
    assert judge(document).status == status and judge(document).headline.startswith(HEADLINES[ExitStatus(status)])


@pytest.mark.parametrize("leak", [[LEAK], []])
def test_a_run_that_could_not_be_removed_was_verified_before(leak: list[Document]) -> None:
    stages = [stage("runbook"), stage("teardown", "passed" if leak else "failed", at=99, status=6)]
    verdict = judge(run(scenario(), stages=stages, leaks=leak))

    assert (verdict.status, verdict.headline) == (6, NOT_CLEAN)


OUTCOMES = [
    scenario(),
    failed(1),
    scenario("error", step(), error=fault(6)),
    scenario("interrupted", step("interrupted")),
    scenario("not_run", reason="needs a tunnel"),
    scenario("not_run", reason=""),
    UNEXPLAINED,
]
STAGES = [
    [],
    [stage("runbook")],
    [stage("setup"), stage("runbook"), stage("teardown")],
    [stage("runbook", "failed")],
    [stage("runbook"), stage("teardown", "failed")],
    [stage("setup", "interrupted")],
]


@pytest.mark.parametrize("stages", STAGES, ids=lambda stages: " ".join(s["stage"] + "=" + s["outcome"] for s in stages))
def test_nothing_but_what_passed_or_was_left_out_for_a_reason_is_verified(stages: list[Document]) -> None:
    for scenarios in itertools.product(OUTCOMES, repeat=3):
        status = judge(run(*scenarios, stages=stages)).status
        fine = all(
            one["outcome"] == "passed" or (one["outcome"] == "not_run" and one["reason"] == "needs a tunnel")
            for one in scenarios
        ) and all(one["outcome"] == "passed" for one in stages)
        some = any(one["outcome"] == "passed" for one in scenarios)
        assert (status == 0) == (fine and some), [one["outcome"] + " " + one["reason"] for one in scenarios]


# -- what is said of a fault ---------------------------------------------------------------------------------------


def test_a_fault_names_its_line_and_what_to_paste() -> None:
    error: Document = {"expected": "active", "seen": "failed", "where": "coreos-1", "paste": "fleetctl status blog"}
    (found,) = judge(run(failed(1, **error))).faults

    assert found.title == "The services start"
    assert found.line == "features/06_start.feature:12: Then every unit is active"
    assert (found.expected, found.seen, found.where, found.paste) == tuple(error.values())
    assert found.layer == "unit"


def test_a_fault_outside_of_every_step_names_its_scenario() -> None:
    (found,) = judge(run(scenario("error", step("not_run"), error=fault(6, message="no engine"), reason="r"))).faults

    assert found.line == "features/06_start.feature:8: Scenario: The services start"
    assert found.seen == "no engine"


def test_a_fault_without_an_error_says_its_reason() -> None:
    (found,) = judge(run(scenario("error", step("not_run"), reason="pytest gave no report"))).faults

    assert found.seen == "pytest gave no report"


def test_a_fault_is_of_the_layer_that_its_error_names_or_its_feature_looks_at() -> None:
    untagged = scenario("failed", step("failed", fault(1)), tags=["mutates"])

    assert judge(run(failed(1))).faults[0].layer == "unit"
    assert judge(run(failed(1, layer="bootstrap"))).faults[0].layer == "bootstrap"
    assert judge(run(untagged)).faults[0].layer == ""


def test_layers_of_tags_are_layers() -> None:
    assert set(LAYER_OF_TAG.values()) <= set(LAYERS)
    assert LAYERS == finding.LAYERS


def test_what_a_watch_raises_is_known_by_its_name() -> None:
    assert RuleBroken.__name__ == RULE_BROKEN


def test_a_stage_that_failed_says_why() -> None:
    (found,) = judge(
        run(stages=[stage("setup", "failed", status=4, error="root is needed to install docker.io")])
    ).faults

    assert (found.title, found.layer, found.seen) == (
        "stage setup failed",
        "toolchain",
        "root is needed to install docker.io",
    )


def test_a_leak_says_what_and_whether_it_is_gone() -> None:
    removed, stays = judge(run(scenario(), leaks=[LEAK, {**LEAK, "removed": False}])).faults

    assert removed.seen == "container platform-x-coreos-0, now removed"
    assert stays.seen == "container platform-x-coreos-0, and it could not be removed"


# -- the screen ----------------------------------------------------------------------------------------------------


def rows(text: str, width: int) -> int:
    """Rows on a terminal that breaks long lines."""
    return sum(max(1, -(-len(line) // width)) for line in text.split("\n"))


LONG = "a word or two of what was seen and expected on that machine " * 30


def test_one_fault_fits_on_one_screen() -> None:
    error: Document = {"expected": LONG, "seen": LONG, "where": "coreos-1", "paste": "fleetctl status blog.service"}
    document = run(failed(1, **error))

    text = screen(document, judge(document))
    assert rows(text, 100) <= 24
    assert "The platform is wrong  (exit status 1)" in text
    assert "features/06_start.feature:12: Then every unit is active" in text
    assert "look at    fleetctl status blog.service" in text
    assert "report     .runs/20260801-120000-ab12/report.html" in text


def test_many_faults_are_counted_and_not_listed() -> None:
    document = run(*[failed(1, at=at, seen="down") for at in range(20, 40)])

    text = screen(document, judge(document))
    assert text.count("fault ") == 3
    assert "and 17 more faults: see the report" in text
    assert "20 failed" in text


def test_one_fault_more_is_one_fault() -> None:
    document = run(*[failed(1, at=at) for at in range(20, 24)])

    assert "and 1 more fault: see the report" in screen(document, judge(document))


def shown(text: str, beginning: str = "  cause ") -> list[str]:
    """The lines of the first cause: from where it is named to the next empty line."""
    lines = text.split("\n")
    at = next(at for at, line in enumerate(lines) if line.startswith(beginning))
    return lines[at : lines.index("", at)]


def test_a_cause_says_what_it_is_and_what_follows_from_it() -> None:
    consequences = [
        found("bootstrap", "fleet on coreos-2", rule="fleet-answers"),
        found("unit", "unit blog.service on coreos-2", rule="unit-runs"),
        found("unit", "unit blog.service on coreos-2", rule="unit-keeps-running"),
    ]
    journal = [line(-0.5, "systemd[1]: Stopping etcd", "coreos-0"), line(0.2, "etcd[7]: wal: no space left on device")]
    document = run(broke_rules(), causes=[cause("bootstrap", *consequences)], journal=journal)

    assert shown(screen(document, judge(document), 120)) == [
        "  cause      etcd on coreos-2 (layer bootstrap, since 12:00:00 UTC)",
        "  expected   etcd.service active",
        "  seen       systemd says failed (failed), exit status 1",
        "  journal    coreos-0 11:59:59 systemd[1]: Stopping etcd",
        "  journal    coreos-2 12:00:00 etcd[7]: wal: no space left on device",
        "  so also    3 consequences: fleet on coreos-2, unit blog.service on coreos-2",
        "  look at    ssh -F ssh_config coreos-2 'systemctl status etcd.service'",
    ]


def test_a_cause_takes_ten_lines_at_most() -> None:
    consequences = [found("unit", f"unit web@{number}.service on coreos-{number % 9}") for number in range(200)]
    journal = [line(number / 10, f"etcd[7]: {number} {LONG}") for number in range(20)]
    worst = cause("bootstrap", *consequences, about=LONG, expected=LONG, seen=f"one line\nand another\n{LONG}")
    document = run(broke_rules(), causes=[worst], journal=journal)

    text = screen(document, judge(document))
    assert rows("\n".join(shown(text)), 100) <= 10
    assert "so also    200 consequences: unit web@0.service on coreos-0, " in text
    assert rows(text, 100) <= 24


def test_what_is_to_be_pasted_of_a_cause_is_never_cut() -> None:
    document = run(broke_rules(), causes=[cause(paste=LONG)])

    assert "".join(LONG.split()) in "".join(screen(document, judge(document)).split())


def test_the_journal_is_shown_where_it_is_nearest_to_the_first_cause() -> None:
    journal = [line(at, f"said {at}") for at in (-4.0, -0.3, 0.1, 0.2, 1.5, 4.5)]
    document = run(broke_rules(), causes=[cause(), cause("unit", about="unit blog.service")], journal=journal)

    text = screen(document, judge(document))
    assert [row.rpartition(" said ")[2] for row in shown(text) if " journal " in row] == ["-0.3", "0.1", "0.2"]
    assert text.count("journal ") == 3


def test_what_does_not_say_since_when_was_seen_at_a_moment() -> None:
    unsaid = found()
    del unsaid["since"], unsaid["paste"]  # as the record leaves out what there is not
    journal = [line(at, f"said {at}") for at in (0, 1, 2, 3, 4, 5)]
    document = run(broke_rules(), causes=[{"finding": unsaid, "consequences": []}], journal=journal)

    lines = shown(screen(document, judge(document)))
    assert lines[0] == "  cause      etcd on coreos-2 (layer bootstrap, seen at 12:00:04 UTC)"
    assert [row.rpartition(" said ")[2] for row in lines if " journal " in row] == ["3", "4", "5"]
    assert not [row for row in lines if "so also" in row or "look at" in row]


def test_causes_beyond_three_are_counted() -> None:
    causes = [cause("unit", about=f"unit {name}.service") for name in "abcde"]
    document = run(broke_rules(), causes=causes)

    text = screen(document, judge(document))
    assert [row.split()[2] for row in text.split("\n") if row.startswith("  cause ")] == [
        "a.service", "b.service", "c.service",
    ]  # fmt: skip
    assert "\n  and 2 more causes: see the report\n" in text
    assert "and 1 more cause: see" in screen({**document}, judge({**document, "causes": causes[:4]}))


def test_rules_that_do_not_hold_are_told_by_their_causes_and_not_twice() -> None:
    document = run(broke_rules(40), broke_rules(50), failed(1, at=60, kind="PlatformWrong", seen="another thing"))
    told = {**document, "causes": [cause()]}

    assert [fault.kind for fault in judge(told).unexplained] == ["PlatformWrong"]
    text = screen(told, judge(told))
    assert text.count("fault ") == text.count("cause ") == 1
    assert "another thing" in text and "told by the causes" not in text
    assert "3 failed" in text
    assert len(judge(told).faults) == 3  # the exit status is that of the first all the same


def test_rules_that_do_not_hold_are_told_by_themselves_where_nobody_knows_a_cause() -> None:
    document = run(broke_rules(expected="an answer", seen="none", where="etcd on coreos-2", paste="uptime"))

    text = screen(document, judge(document))
    assert shown(text, "  fault ")[2:] == [
        "  layer      unit", "  expected   an answer", "  seen       none", "  where      etcd on coreos-2",
        "  look at    uptime",
    ]  # fmt: skip


def test_where_nothing_failed_there_is_no_cause() -> None:
    document = run(scenario(), causes=[cause()])

    assert judge(document).causes == ()
    assert "cause " not in screen(document, judge(document))


def test_a_verified_run_is_short() -> None:
    document = run(scenario(), scenario("not_run", reason="needs a tunnel"))

    text = screen(document, judge(document))
    assert f"{IN_PART}  (exit status 0)" in text
    assert "1 not run, 1 passed" in text
    assert rows(text, 100) < 10


def test_what_is_to_be_pasted_is_never_cut() -> None:
    paste = "ssh -o UserKnownHostsFile=known_hosts core@10.208.1.2 " + "sudo journalctl --no-pager --unit=x " * 20
    document = run(failed(1, paste=paste.strip()))

    assert "".join(paste.split()) in "".join(screen(document, judge(document)).split())


def test_where_the_cluster_stands_a_command_has_a_place_to_be_pasted_in() -> None:
    document = run(failed(1, paste="fleetctl status blog"), stages=CHECK)

    assert "  paste in   bin/platform shell --run 20260801-120000-ab12\n" in screen(document, judge(document))
    document = run(broke_rules(), causes=[cause()], stages=CHECK)
    assert "  paste in   bin/platform shell --run 20260801-120000-ab12\n" in screen(document, judge(document))


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(run(failed(1, paste="fleetctl status blog")), id="it was removed"),
        pytest.param(
            run(failed(1, paste="ls"), stages=[*CHECK, stage("teardown", "failed", status=6)]), id="what is left of it"
        ),
        pytest.param(run(failed(1, paste="ls"), stages=CHECK, cluster=None), id="it is known by its outputs only"),
        pytest.param(run(failed(1), stages=CHECK), id="there is nothing to paste"),
        pytest.param(run(scenario(), stages=CHECK), id="there is no fault"),
        pytest.param(
            run(*[failed(1, at=at) for at in (1, 2, 3)], failed(1, at=4, paste="ls"), stages=CHECK),
            id="the command is not shown",
        ),
        pytest.param(
            run(broke_rules(), causes=[*[cause(paste="")] * 3, cause(paste="ls")], stages=CHECK),
            id="the command of a cause is not shown",
        ),
    ],
)
def test_elsewhere_it_has_none(document: Document) -> None:
    assert "paste in" not in screen(document, judge(document))


# -- what to do ----------------------------------------------------------------------------------------------------

TO_DO = "Troubleshooting 6: read its last words, and start it."


def test_what_to_do_is_said_of_each_cause() -> None:
    causes = [cause(), cause("unit", rule="unit-runs"), cause("entry", rule="unheard-of")]
    remedies = {"system-unit-runs": TO_DO, "unit-runs": "Troubleshooting 11: see", "site-answers": "Troubleshooting 13"}
    document = run(broke_rules(), causes=causes, remedies=remedies)

    text = screen(document, judge(document))
    said = [row for row in text.split("\n") if row.startswith("  to do ")]
    assert said == [f"  to do      {TO_DO}", "  to do      Troubleshooting 11: see"]
    assert shown(text)[-2:] == [f"  look at    {cause()['finding']['paste']}", said[0]]
    programs = for_programs(document, judge(document))
    assert [it["to_do"] for it in programs["causes"]] == [TO_DO, "Troubleshooting 11: see", ""]


@pytest.mark.parametrize("mends", ["fleetctl start --no-block " + "unit.service " * 40, "README, Recovery 2: make it"])
def test_what_mends_a_cause_stands_behind_what_to_look_at_and_is_never_cut(mends: str) -> None:
    document = run(broke_rules(), causes=[cause(repair=mends)], remedies={"system-unit-runs": TO_DO}, stages=CHECK)

    text = screen(document, judge(document))
    assert shown(text)[-2:] == [f"  look at    {cause()['finding']['paste']}", f"  mend       {mends.strip()}"]
    assert "to do" not in text and "  paste in  " in text
    (told,) = for_programs(document, judge(document))["causes"]
    assert (told["finding"]["repair"], told["to_do"]) == (mends, TO_DO)


def test_what_to_do_takes_two_lines_at_most() -> None:
    document = run(broke_rules(), causes=[cause()], remedies={"system-unit-runs": LONG})

    (row,) = [row for row in screen(document, judge(document)).split("\n") if row.startswith("  to do ")]
    assert rows(row, 100) <= 2 and row.endswith("…")


# -- a diagnosis ---------------------------------------------------------------------------------------------------


def diagnosis(*causes: Document, outcome: str = "passed", status: int = 3, **fields: Any) -> Document:
    error = None if outcome == "passed" else "no room left"
    looks = [{"number": 1, "unseen": ["ports"]}, {"number": 2, "unseen": []}]
    stages = [stage("diagnosis", outcome, status=status, error=error)]
    return run(stages=stages, causes=list(causes), **{"commands": [], "looks": looks, **fields})


@pytest.mark.parametrize(
    ("layers", "status"),
    [
        ((), 0),
        (("environment", "environment"), 6),
        (("environment", "unit"), 1),
        (("config",), 4),
        *(((layer,), 1) for layer in LAYERS if layer not in ("environment", "config")),
    ],
)
def test_diagnosis_has_the_status_of_its_causes(layers: tuple[str, ...], status: int) -> None:
    verdict = judge(diagnosis(*map(cause, layers)))

    assert (verdict.status, len(verdict.causes), verdict.faults) == (status, len(layers), ())
    assert verdict.headline == (HEADLINES[ExitStatus(status)] if layers else NOTHING_WRONG)


@pytest.mark.parametrize("causes", [[], [cause("unit")]])
def test_diagnosis_that_was_interrupted_says_that(causes: list[Document]) -> None:
    verdict = judge(diagnosis(*causes, outcome="interrupted"))

    assert (verdict.status, verdict.headline) == (2, HEADLINES[ExitStatus.INTERRUPTED])
    assert list(verdict.causes) == causes


@pytest.mark.parametrize("status", [1, 3, 4, 6])
def test_diagnosis_that_failed_says_why(status: int) -> None:
    document = diagnosis(outcome="failed", status=status)
    verdict = judge(document)

    assert (verdict.status, verdict.headline) == (status, HEADLINES[ExitStatus(status)])
    assert "  fault      stage diagnosis failed\n  seen       no room left\n" in screen(document, verdict)


def test_diagnosis_that_failed_tells_the_causes_that_it_had_found() -> None:
    document = diagnosis(cause("unit"), outcome="failed", status=6)

    assert judge(document).status == 1 and "  cause " in screen(document, judge(document))


def last_rows(document: Document) -> list[str]:
    text = screen(document, judge(document))
    return text[text.index("  report ") :].rstrip("\n").split("\n")[1:]


def test_diagnosis_says_where_its_evidence_is_and_what_can_be_sent() -> None:
    assert last_rows(diagnosis()) == [
        "  evidence   .runs/20260801-120000-ab12/evidence",
        "  to send    .runs/20260801-120000-ab12/diagnosis.tar.gz (known secrets are masked)",
    ]


def test_diagnosis_says_what_it_could_not_see_in_the_end_and_what_else_is_to_be_known() -> None:
    looks = [{"number": 1, "unseen": ["ports"]}, {"number": 2, "unseen": ["Terraform's plan", "the kernel's log"]}]
    document = diagnosis(looks=looks, notes=[{"text": "a drill was killed"}, {"text": f"and\n{LONG}"}])

    unseen, *notes, evidence, send = last_rows(document)
    assert unseen == "  not seen   Terraform's plan, the kernel's log"
    assert notes[0] == "  note       a drill was killed" and notes[1].startswith("  note       and a word or two")
    assert rows(notes[1], 100) <= 2 and evidence.startswith("  evidence ") and send.startswith("  to send ")
    assert for_programs(document, judge(document))["unseen"] == looks[1]["unseen"]


def test_run_that_is_no_diagnosis_has_none_of_it() -> None:
    document = run(failed(1), looks=[{"number": 1, "unseen": ["ports"]}], notes=[{"text": "a note"}])

    assert last_rows(document) == []
    assert for_programs(document, judge(document))["unseen"] == ["ports"]


def test_diagnosis_that_could_not_look_has_no_list_of_what_it_did_not_see() -> None:
    document = diagnosis(cause("environment", rule="engine-answers"), looks=[])

    assert "not seen" not in screen(document, judge(document))
    assert for_programs(document, judge(document))["unseen"] == []


def test_record_of_before_there_were_remedies_is_rendered() -> None:
    started = {"run_id": "r", "target": "local", "cluster": "r", "command": ["nightly"], "folder": ".", "readme": []}
    look = {"kind": "look", "t": 2.0, "number": 1, "seconds": 1, "bytes": 1, "silent": []}
    for name, kept in (("runbook", False), ("diagnosis", True)):
        document = fold(
            [
                {"kind": "run.started", "t": 1.0, **started, "selection": None},
                {"kind": "stage.started", "t": 1.0, "stage": name},
                look,
                {"kind": "causes", "t": 3.0, "look": 1, "causes": [cause("unit")]},
                {"kind": "stage.ended", "t": 4.0, "stage": name, "seconds": 3, "outcome": "passed", "error": None},
            ]
        )
        text, told = screen(document, judge(document)), for_programs(document, judge(document))
        assert ("  cause " in text) is kept and "to do" not in text and "not seen" not in text
        assert told["unseen"] == [] and {it["to_do"] for it in told["causes"]} == ({""} if kept else set())
