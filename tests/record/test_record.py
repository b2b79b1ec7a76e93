"""The record of a run: what is written survives whatever ends the run, and no secret gets into it."""

from __future__ import annotations

import base64
import json
import multiprocessing
import os
import secrets
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import EnvironmentFailed, ExitStatus
from harness.record.log import EVENTS, SCHEMA, Recorder, Redactor, fold, read_events
from harness.reports import verdict
from harness.runs.agent import Keys
from harness.seams.process import Processes

Events = Callable[..., list[dict[str, Any]]]
PLAN: dict[str, Any] = {
    "feature": "features/06_start.feature", "feature_title": "6. Start the services", "line": 8, "tags": ["start"],
    "steps": [
        {"keyword": "When", "text": "the operator runs `fleetctl start`", "line": 9},
        {"keyword": "Then", "text": "every unit is active", "line": 10},
    ],
}  # fmt: skip


def lines(recorder: Recorder) -> list[str]:
    return recorder.path.read_text().splitlines()


def tear(recorder: Recorder, half_line: bytes) -> None:
    """What a killed process, or a full disk, leaves of an event."""
    with recorder.path.open("ab") as log:
        log.write(half_line)


@pytest.fixture
def folded(recorder: Recorder) -> Callable[[], dict[str, Any]]:
    return lambda: fold(read_events(recorder.path))


# -- writing -------------------------------------------------------------------------------------------------------


def test_an_unknown_event_is_refused_and_not_written(recorder: Recorder) -> None:
    with pytest.raises(ValueError, match=r"unknown event scenario.begun"):
        recorder.emit("scenario.begun", id="1")

    assert lines(recorder) == []


def test_an_event_is_one_line_whatever_is_in_it(recorder: Recorder, events: Events) -> None:
    text = 'two\nlines\r\n \u2028 \x00 "quoted" \\ {"t": 0, "kind": "note"} 世界 '
    recorder.emit("note", text=text, other=[{"t": 0, "kind": "note"}])

    assert recorder.path.read_bytes().count(b"\n") == 1
    (event,) = events()
    assert (event["text"], event["other"]) == (text, [{"t": 0, "kind": "note"}])


def test_what_json_does_not_know_is_written_as_text(recorder: Recorder, events: Events) -> None:
    recorder.emit("note", text=Path("/etc"), other={1, 2} and ExitStatus.VERIFIED)
    recorder.emit("note", text="no text: \udcff")

    assert [event["text"] for event in events("note")] == ["/etc", "no text: ?"]


def test_what_is_under_way_is_in_every_event_until_it_is_over(recorder: Recorder, events: Events) -> None:
    recorder.within(scenario="a", step=0)
    recorder.emit("note", text="1")
    recorder.within(step=None)
    recorder.emit("note", text="2")
    recorder.within(scenario=None)
    recorder.emit("note", text="3")

    assert [(event.get("scenario"), event.get("step")) for event in events()] == [("a", 0), ("a", None), (None, None)]


def test_a_log_is_continued_by_the_next_process(recorder: Recorder, events: Events) -> None:
    recorder.emit("note", text="first")
    other = Recorder(recorder.path)
    other.emit("note", text="second")
    other.close()

    assert [event["text"] for event in events("note")] == ["first", "second"]


def test_threads_at_once_keep_lines_whole(recorder: Recorder, events: Events) -> None:
    def write(name: int) -> None:
        for _ in range(100):
            recorder.emit("note", text=str(name) * 10_000)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(lines(recorder)) == 800
    assert all(len(set(event["text"])) == 1 for event in events("note"))


def _write(path: Path, name: int) -> None:
    recorder = Recorder(path)
    for _ in range(100):
        recorder.emit("note", text=str(name) * 10_000, id=recorder.new_id("note"))


def test_processes_at_once_keep_lines_whole_and_ids_apart(recorder: Recorder, events: Events) -> None:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_write, args=(recorder.path, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert len(lines(recorder)) == 400
    assert all(len(set(event["text"])) == 1 for event in events("note"))
    assert len({event["id"] for event in events("note")}) == 400


def test_threads_at_once_get_ids_of_their_own(recorder: Recorder) -> None:
    given: list[str] = []

    def take() -> None:
        given.extend([recorder.new_id("command") for _ in range(2000)])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-7)
    try:
        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)

    assert len(given) == 16_000
    assert len(set(given)) == 16_000


# -- tasks ---------------------------------------------------------------------------------------------------------


def test_a_task_is_done_unless_something_else_is_said(recorder: Recorder, events: Events) -> None:
    with recorder.task("fleet"):
        recorder.emit("note", text="under way")
    with recorder.task("go") as task:
        task.outcome = "cached"

    assert [event["kind"] for event in events()][:3] == ["task.started", "note", "task.ended"]
    ended = [(event["task"], event["outcome"], event["error"]) for event in events("task.ended")]
    assert ended == [("fleet", "done", None), ("go", "cached", None)]
    assert all(0 <= event["seconds"] < 1 for event in events("task.ended"))


@pytest.mark.parametrize(
    ("said", "outcome", "error"),
    [("done", "failed", "no disk"), ("cached", "failed", "no disk"), ("interrupted", "interrupted", None)],
)
def test_a_task_that_raises_has_failed_unless_it_was_interrupted(
    recorder: Recorder, events: Events, said: str, outcome: str, error: str | None
) -> None:
    with pytest.raises(EnvironmentFailed, match="no disk"), recorder.task("fleet") as task:
        task.outcome = said
        raise EnvironmentFailed("no disk")

    (ended,) = events("task.ended")
    assert (ended["outcome"], ended["error"]) == (outcome, error)


# -- reading a log that was cut off --------------------------------------------------------------------------------


def test_an_empty_log_folds(recorder: Recorder, folded: Callable[[], dict[str, Any]]) -> None:
    run = folded()

    assert (run["schema"], run["run_id"], run["scenarios"], run["last_event"]) == (SCHEMA, None, [], None)
    assert verdict.judge(run).status is ExitStatus.NOTHING_VERIFIED


@pytest.mark.parametrize(
    "half",
    [
        b'{"t": 1.5, "kind": "no',
        b"{",
        b'{"t"',
        b'{"t": 5',
        b"\0\0\0\0",
        '{"t": 1, "text": "ü'.encode()[:-1],
        b"7",
        b'"x"',
    ],
)
def test_a_torn_line_is_passed_over_at_the_end_and_in_the_middle(
    recorder: Recorder, events: Events, half: bytes
) -> None:
    recorder.emit("note", text="before")
    tear(recorder, half)
    assert [event["text"] for event in events()] == ["before"]

    recorder.emit("note", text="appended to the torn line")
    recorder.emit("note", text="after")
    texts = [event["text"] for event in events()]
    assert texts in (["before", "appended to the torn line", "after"], ["before", "after"])
    assert all(isinstance(event, dict) for event in events())


def test_the_event_that_follows_on_a_torn_line_is_not_lost(recorder: Recorder, events: Events) -> None:
    tear(recorder, b'{"t": 1.5, "kind": "command.ended", "stdout": "{\\"t\\": 1')
    recorder.emit("note", text='with {"t": in it')

    assert [event["text"] for event in events()] == ['with {"t": in it']


def test_a_line_that_is_no_event_is_passed_over(recorder: Recorder, events: Events) -> None:
    recorder.emit("note", text="before")
    for line in (b"\n", b"[]\n", b"17\n", b"null\n", b"Traceback (most recent call last):\n", b'{"t": 1}\n'):
        tear(recorder, line)
    recorder.emit("note", text="after")

    assert [event["text"] for event in events("note")] == ["before", "after"]
    assert fold(events())["notes"]


def test_every_prefix_of_a_log_folds(recorder: Recorder, tmp_path: Path) -> None:
    write_a_run(recorder)
    recorder.emit("run.ended", status=0, headline="Verified: ü")
    whole = recorder.path.read_bytes()
    cut = tmp_path / "cut.jsonl"
    for length in [*range(0, len(whole), 7), len(whole)]:
        cut.write_bytes(whole[:length])
        run = fold(read_events(cut))
        assert run["schema"] == SCHEMA
        assert verdict.judge(run).status in (
            (ExitStatus.NOTHING_VERIFIED, ExitStatus.INTERRUPTED)
            if length < whole.index(b"stage.ended")
            else ExitStatus
        )


def write_a_run(recorder: Recorder) -> None:
    """A run in which something of every kind begins, and nothing that began last has ended."""
    recorder.emit("run.started", run_id="r", target="local", command=[], folder="f", readme=[], selection=None)
    recorder.emit("stage.started", stage="runbook")
    for name in ("a", "b"):
        recorder.emit("scenario.planned", id=name, title=name, **PLAN)
    recorder.emit("scenario.started", id="a")
    recorder.emit("step.started", id="a", index=0)
    recorder.emit("command.started", id="c1", argv=["true"], line=None, cwd="/", environment=[], typed=False)
    recorder.emit("command.ended", id="c1", status=0, seconds=1, stdout="", stderr="")
    recorder.emit("step.ended", id="a", index=0, outcome="passed", error=None, seconds=1)
    recorder.emit("step.started", id="a", index=1)
    recorder.emit("wait.started", id="w1", what="units", within=60, hold_for=0)
    recorder.emit("wait.seen", id="w1", value="loaded")
    recorder.emit("command.started", id="c2", argv=["fleetctl"], line=None, cwd="/", environment=[], typed=False)
    recorder.emit("task.started", task="look around")
    recorder.emit("stage.started", stage="evidence")
    recorder.emit("stage.ended", stage="evidence", seconds=1, outcome="passed", error=None)
    recorder.emit("remote", machine="coreos-0", command="true", status=0, seconds=0, stdout="", stderr="")
    recorder.emit("exchange", method="GET", url="http://x/", status=200, seconds=0, bytes=1)
    recorder.emit("artefact", path="evidence/x", about="x")
    recorder.emit("fingerprint", facts={"etcd's lasting keys": "1 keys, the newest of index 7"})
    recorder.emit("look", number=1, seconds=0.4, bytes=9000, silent=[])
    recorder.emit("causes", look=1, causes=[{"finding": {"layer": "unit"}, "consequences": []}])
    recorder.emit("journal", lines=[{"machine": "coreos-0", "time": 1.5, "text": "etcd[7]: no space left"}])
    recorder.emit("leak", what="container", name="x", removed=True)


def test_of_causes_and_journals_the_last_that_were_told_count(
    recorder: Recorder, folded: Callable[[], dict[str, Any]]
) -> None:
    """A later look knows more; one that finds nothing any more says that too."""
    first, last = ({"finding": {"about": about}, "consequences": []} for about in ("fleet", "etcd on coreos-2"))
    assert (folded()["causes"], folded()["journal"]) == ([], [])
    for number, causes in enumerate(([first], [last, first]), 1):
        recorder.emit("look", number=number, seconds=0.4, bytes=9000, silent=[])
        recorder.emit("causes", look=number, causes=causes)
        recorder.emit("journal", lines=[{"machine": "coreos-0", "time": float(number), "text": "said"}])

    run = folded()
    assert run["causes"] == [last, first]
    assert [line["time"] for line in run["journal"]] == [2.0]
    assert [look["number"] for look in run["looks"]] == [1, 2]
    recorder.emit("causes", look=3, causes=[])
    assert folded()["causes"] == []


def test_a_killed_run_says_what_was_under_way(recorder: Recorder, folded: Callable[[], dict[str, Any]]) -> None:
    write_a_run(recorder)
    run = folded()

    scenario, not_reached = run["scenarios"]
    assert (scenario["outcome"], scenario["reason"]) == ("interrupted", "the run ended before it did")
    assert [step["outcome"] for step in scenario["steps"]] == ["passed", "interrupted"]
    assert (not_reached["outcome"], not_reached["reason"]) == ("not_run", "not reached")
    assert [step["outcome"] for step in not_reached["steps"]] == ["not_run", "not_run"]
    assert [(command["outcome"], command.get("status")) for command in run["commands"]] == [
        ("ended", 0),
        ("interrupted", None),
    ]
    (wait,) = run["waits"]
    assert (wait["outcome"], [seen["value"] for seen in wait["seen"]]) == ("interrupted", ["loaded"])
    assert [(stage["stage"], stage["outcome"]) for stage in run["stages"]] == [
        ("runbook", "interrupted"),
        ("evidence", "passed"),
    ]
    assert [task["outcome"] for task in run["tasks"]] == ["interrupted"]
    assert (run["status"], run["ended"]) == (None, None)
    assert verdict.judge(run).status is ExitStatus.INTERRUPTED


def test_a_scenario_that_was_left_out_keeps_its_reason(
    recorder: Recorder, folded: Callable[[], dict[str, Any]]
) -> None:
    recorder.emit("scenario.planned", id="a", title="a", **PLAN)
    recorder.emit("scenario.ended", id="a", outcome="not_run", reason='stands on "b", which failed', seconds=0)

    (scenario,) = folded()["scenarios"]
    assert (scenario["outcome"], scenario["reason"]) == ("not_run", 'stands on "b", which failed')
    assert scenario["started"] is None


def test_a_run_that_ended_has_its_status_and_facts(recorder: Recorder, folded: Callable[[], dict[str, Any]]) -> None:
    recorder.emit("run.started", run_id="r", target="local", command=["acceptance"], folder="f", readme=["ls"])
    recorder.emit("run.facts", terraform="1.9.0")
    recorder.emit("run.facts", fleet="1.0.0")
    recorder.emit("run.ended", status=0, headline="Verified")

    run = folded()
    assert (run["run_id"], run["status"], run["headline"]) == ("r", 0, "Verified")
    assert run["facts"] == {"terraform": "1.9.0", "fleet": "1.0.0"}
    assert run["started"] <= run["ended"] == run["last_event"]


def test_a_check_names_the_run_that_made_its_cluster(recorder: Recorder, folded: Callable[[], dict[str, Any]]) -> None:
    assert folded()["cluster"] is None
    recorder.emit("run.started", run_id="r", target="local", cluster="kept", command=["check"], folder="f", readme=[])

    run = folded()
    assert (run["run_id"], run["cluster"]) == ("r", "kept")


def test_what_a_run_of_another_version_did_not_write_is_none_or_empty(
    recorder: Recorder, folded: Callable[[], dict[str, Any]]
) -> None:
    recorder.emit("run.started", run_id="r", target="local", command=["acceptance"], folder="f", readme=[])

    run = folded()
    assert (run["cluster"], run["selection"], run["fingerprints"]) == (None, None, [])


def test_a_run_that_goes_on_after_its_end_keeps_its_verdict(
    recorder: Recorder, folded: Callable[[], dict[str, Any]]
) -> None:
    """As `down` adds the teardown to the record of the run that kept its cluster."""
    recorder.emit("run.started", run_id="r", target="local", cluster="r", command=["up"], folder="f", readme=[])
    recorder.emit("run.ended", status=0, headline="Verified")
    ended = folded()["ended"]
    recorder.emit("stage.started", stage="teardown")
    recorder.emit("stage.ended", stage="teardown", seconds=1, outcome="passed", error=None)

    run = folded()
    assert (run["status"], run["headline"], run["ended"]) == (0, "Verified", ended)
    assert [stage["stage"] for stage in run["stages"]] == ["teardown"]
    assert run["last_event"] >= ended


def test_fingerprints_are_kept_in_order_whatever_they_name(
    recorder: Recorder, redact: Redactor, folded: Callable[[], dict[str, Any]]
) -> None:
    redact.add("token", "a secret of many characters")
    recorder.emit("fingerprint", facts={"boot of coreos-0": "1"})
    recorder.emit("note", text="between")
    recorder.emit("fingerprint", facts={"boot of coreos-0": "a secret of many characters", "Terraform's serial": "9"})

    before, after = folded()["fingerprints"]
    assert before["facts"] == {"boot of coreos-0": "1"}
    assert after["facts"] == {"boot of coreos-0": "[token]", "Terraform's serial": "9"}
    assert before["t"] <= after["t"]


ENDS: dict[str, dict[str, Any]] = {
    "stage.ended": {"stage": "setup", "outcome": "passed", "seconds": 1, "error": None},
    "task.ended": {"task": "go", "outcome": "done", "seconds": 1, "error": None},
    "command.ended": {"id": "c", "status": 0, "seconds": 1, "stdout": "", "stderr": ""},
    "wait.ended": {"id": "w", "outcome": "reached", "value": 1, "seconds": 1},
    "wait.seen": {"id": "w", "value": 1},
    "scenario.started": {"id": "s"},
    "scenario.ended": {"id": "s", "outcome": "passed", "reason": "", "seconds": 1},
    "step.started": {"id": "s", "index": 0},
    "step.ended": {"id": "s", "index": 0, "outcome": "passed", "error": None, "seconds": 1},
}


@pytest.mark.parametrize("kind", ENDS)
def test_an_end_whose_beginning_was_lost_does_not_lose_the_run(
    recorder: Recorder, folded: Callable[[], dict[str, Any]], kind: str
) -> None:
    recorder.emit(kind, **ENDS[kind])
    recorder.emit("note", text="after")

    assert [note["text"] for note in folded()["notes"]] == ["after"]


def test_a_step_that_was_not_planned_does_not_lose_the_run(
    recorder: Recorder, folded: Callable[[], dict[str, Any]]
) -> None:
    recorder.emit("scenario.planned", id="s", title="s", **PLAN)
    recorder.emit("step.started", id="s", index=7)
    recorder.emit("note", text="after")

    assert folded()["notes"]


def test_the_fold_knows_every_kind_of_event(recorder: Recorder) -> None:
    everything = {
        "id": "x", "stage": "x", "task": "x", "index": 0, "value": 1, "steps": PLAN["steps"], "outcome": "passed",
        "causes": [], "lines": [],
    }  # fmt: skip
    for kind in EVENTS:
        fold([{"t": 0, "kind": "scenario.planned", **everything}, {"t": 1, "kind": kind, **everything}])


def test_two_things_at_once_are_not_mixed_up(recorder: Recorder, folded: Callable[[], dict[str, Any]]) -> None:
    for name in ("a", "b"):
        recorder.emit("command.started", id=name, argv=[name], line=None, cwd="/", environment=[], typed=False)
    for name, status in (("a", 1), ("b", 2)):
        recorder.emit("command.ended", id=name, status=status, seconds=0, stdout="", stderr="")

    assert [(command["argv"], command["status"]) for command in folded()["commands"]] == [(["a"], 1), (["b"], 2)]


# -- secrets -------------------------------------------------------------------------------------------------------

SECRET = "s3cret/with+signs=&and:more"
ODD = 'pass"wörd\\with\ttab'


@pytest.mark.parametrize("secret", [SECRET, ODD, "a b c d e f", "x" * 8, "A" * 64], ids=lambda secret: secret[:9])
@pytest.mark.parametrize(
    "form",
    [
        pytest.param(str, id="as it stands"),
        pytest.param(lambda secret: base64.b64encode(secret.encode()).decode(), id="base64"),
        pytest.param(lambda secret: base64.b64encode(secret.encode()).decode().rstrip("="), id="base64 unpadded"),
        pytest.param(lambda secret: base64.b64encode(secret.encode() + b"\n").decode(), id="base64 of the line"),
        pytest.param(lambda secret: urllib.parse.quote(secret, safe=""), id="URL-encoded"),
        pytest.param(lambda secret: f"indented:\n    {secret}\n", id="indented"),
    ],
)
def test_a_secret_is_hidden_in_every_form(
    recorder: Recorder, redact: Redactor, events: Events, secret: str, form: Callable[[str], str]
) -> None:
    redact.add("token", secret)
    recorder.emit("note", text=f"before {form(secret)} after")

    (event,) = events()
    assert secret not in event["text"]
    assert form(secret) not in event["text"]
    assert "[token]" in event["text"]
    assert event["text"].startswith("before ")
    assert event["text"].endswith(" after")


@pytest.mark.parametrize("dumped", [json.dumps(SECRET), json.dumps(ODD), json.dumps(ODD, ensure_ascii=False)])
def test_a_secret_is_hidden_in_what_a_program_answers_as_json(redact: Redactor, dumped: str) -> None:
    redact.add("token", SECRET)
    redact.add("token", ODD)

    assert redact(f'{{"value": {dumped}}}') == '{"value": "[token]"}'


def test_every_line_of_a_secret_counts(recorder: Recorder, redact: Redactor) -> None:
    redact.add("key", "first line of it\n   second line of it\n\nthird line of it\n")
    recorder.emit("note", text="second line of it")
    recorder.emit("note", text="> third line of it <")

    assert [line.count("[key]") for line in lines(recorder)] == [1, 1]


def test_short_values_are_passed_over(redact: Redactor) -> None:
    redact.add("word", "local")
    redact.add("lines", "yes\nno\n")

    assert redact("no target local, yes") == "no target local, yes"


def test_a_secret_within_a_secret_does_not_spare_the_rest(redact: Redactor) -> None:
    redact.add("inner", "tokenpart")
    redact.add("outer", "prefix-tokenpart-suffix")

    assert redact("x prefix-tokenpart-suffix y tokenpart z") == "x [outer] y [inner] z"


def test_an_event_stays_readable_whatever_is_hidden(recorder: Recorder, redact: Redactor, events: Events) -> None:
    redact.add("odd", ODD)
    recorder.emit("note", text=ODD, other={"nested": [ODD]})

    (event,) = events()
    assert (event["text"], event["other"]) == ("[odd]", {"nested": ["[odd]"]})


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("NAME_KEY=0123456789 and more", "NAME_KEY=[masked] and more"),
        ("NAME_KEY='0123456789'", "NAME_KEY='[masked]'"),
        ('{"API_KEY": "0123456789"}', '{"API_KEY": "[masked]"}'),
        ("DB_PASS=abc123 password: abc123", "DB_PASS=[masked] password: [masked]"),
        ("postgres://user:abc123@db/x", "postgres://user:[masked]@db/x"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer [masked]"),
        ('export API_TOKEN="0123456789"', 'export API_TOKEN="[masked]"'),
        ("SECRET=0123456789", "SECRET=[masked]"),
        ("a DB_PASSWORD=0123456789;", "a DB_PASSWORD=[masked]"),
        ('{"Env": ["NAME_KEY=0123456789", "A=b"]}', '{"Env": ["NAME_KEY=[masked]", "A=b"]}'),
        (r'"told\nNAME_KEY=0123456789"', r'"told\nNAME_KEY=[masked]"'),
        ('password="a b, c" x', 'password="[masked]" x'),
        ("password='it\"s, mine' x", "password='[masked]' x"),
        ('{"password": "a, b", "x": 1}', '{"password": "[masked]", "x": 1}'),
        (r"{\"password\":\"a \\\"b\\\", c\",\"x\":1}", r"{\"password\":\"[masked]\",\"x\":1}"),
        ('{"Env": ["DB_PASSWORD=a, b c", "A=b"]}', '{"Env": ["DB_PASSWORD=[masked]", "A=b"]}'),
        ('Environment="NAME_KEY=a b" "B=2"', 'Environment="NAME_KEY=[masked]" "B=2"'),
        ('password: "cut off, and', 'password: "[masked]'),
        ("x DB_PASS=ab,cd y", "x DB_PASS=[masked] y"),
        ('{"token":123456,"x":1}', '{"token":[masked],"x":1}'),
        ("NAME_KEY=[key of the name server] x", "NAME_KEY=[masked] x"),
        ("api_key: abcd", "api_key: [masked]"),
        ('{"apiKey":"a b"}', '{"apiKey":"[masked]"}'),
        ("x-api-key: abcd", "x-api-key: [masked]"),
        ("AWS_SECRET_ACCESS_KEY=a/b+c=", "AWS_SECRET_ACCESS_KEY=[masked]"),
        ("AWS_SECRET_ACCESS_KEY: a/b+c", "AWS_SECRET_ACCESS_KEY: [masked]"),
        ("aws_secret_access_key = a/b+c", "aws_secret_access_key = [masked]"),
        ("PASSPHRASE=abcd", "PASSPHRASE=[masked]"),
        ("export PASSPHRASE='a, b'", "export PASSPHRASE='[masked]'"),
        ("clientSecret: abcd", "clientSecret: [masked]"),
        ("Authorization: Basic YTpi", "Authorization: Basic [masked]"),
        ("authorization: abc def\nHost: x", "authorization: [masked]\nHost: x"),
        ('Authorization: Digest username="a", response="b"', "Authorization: Digest [masked]"),
        ('"Authorization": "token abc", "x": 1', '"Authorization": "token [masked]", "x": 1'),
        ("curl -H 'Proxy-Authorization: a b' x", "curl -H 'Proxy-Authorization: [masked]' x"),
        ("mysql --password x -u y", "mysql --password [masked] -u y"),
        ("mysql --password=x -u y", "mysql --password=[masked] -u y"),
        ('mysql --password "a b" -u y', 'mysql --password "[masked]" -u y'),
        ('["mysql", "--password", "a b", "-u"]', '["mysql", "--password", "[masked]", "-u"]'),
        ("redis://:abc@db", "redis://:[masked]@db"),
        ("postgres://user:a:b@c@db/x", "postgres://user:[masked]@db/x"),
        ('key "it" { secret "a b=="; };', 'key "it" { secret "[masked]"; };'),
    ],
)
def test_what_says_by_its_name_that_it_is_secret_is_hidden(redact: Redactor, text: str, hidden: str) -> None:
    assert redact(text) == hidden
    assert redact(hidden) == hidden


BEFORE = {
    **{f"{name}=": "" for name in ("NAME_KEY", "DB_PASSWORD", "aws_secret_access_key", "PASSPHRASE", "it --token")},
    **{f"{name}: ": "" for name in ("password", "api_key", "Authorization", "X-Auth-Token")},
    **{f'{name} "': '"' for name in ("secret", "--password", "my_secret =", "passphrase:")},
    '{"x": {"privateKey": "': '"}}',
    r'"{\"token\": \"': r'\"}"',
    '["A=b", "DB_PASS=': '", "B=c"]',
    "https://:": "@db/x",
}
# no beginning of what is masked before the value, which is none
VALUE = st.text(st.sampled_from("abcXYZ019+/=_.%$#!*"), min_size=4).filter(lambda value: value.strip("+/=_.%$#!*"))


@given(st.sampled_from(sorted(BEFORE)), VALUE, VALUE, st.sampled_from([" ", ", ", ",", ": ", " - "]))
def test_no_part_of_a_value_is_told(before: str, one: str, other: str, between: str) -> None:
    encloses = BEFORE[before] not in ("", "@db/x")
    value = f"{one}{between}{other}" if encloses else one.replace("/", "_")
    text = f"it is {before}{value}{BEFORE[before]}"

    assert Redactor()(text) == f"it is {before}[masked]{BEFORE[before]}"


PARTS = (*"ab \"'\\:=,@/-_\n", "key", "KEY", "password", "--token", "://", "authorization", "[masked]")


@given(st.lists(st.sampled_from(PARTS)).map("".join))
def test_any_text_is_masked_soon_and_once(text: str) -> None:
    redact = Redactor()

    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "text",
    [
        *("NAME_KEY=abc", "KEYS=0123456789", "monkey=0123456789", "NAME_KEY", "NAME_KEY is 0123456789"),
        *("KEY= 0123456789", '"key":"/services/blog"', "public_key: ssh-ed25519 AAAA", "SSH_PUBLIC_KEY=ssh-ed25519"),
        *('"index_key": "coreos-1"', '"provider_config_key":"docker"', "primary_key=number", "host key: ssh-ed25519"),
        *("PWD=/root OLDPWD=/home", "PASSWORD_FILE=/run/x", "bypass=true", "compass: north", "pass: 1234, fail: 0"),
        *("PASS: 1234", "unexpected token '<' in it", "the password is wrong", "the secret of it", "give --key FILE"),
        *("http://host:80/a@b", "ssh://core@host", "at 10:20:30 to a@b", "http://[fd00::1]:2379/x user@host"),
        *("Permission denied (publickey,password).", "Failed password for root from 192.0.2.1", "max_tokens=4000"),
        *(
            "enter passphrase for key '/root/it':",
            "authorization required",
            '"Authorization":null',
            "--password-file /x",
        ),
        *(
            '"password": "", "x": "y"',
            '"token": null, "x": true',
            "--no-password -U x",
            "--password-file /x",
            "tokenizer=fast",
        ),
    ],
)
def test_what_only_looks_as_if_it_were_secret_is_told(redact: Redactor, text: str) -> None:
    assert redact(text) == text


def test_masking_what_is_made_to_be_slow_costs_little(redact: Redactor) -> None:
    began = time.process_time()
    for text in ('password="', "key ", "--password ", "Authorization: ", "://a:b", "\\", '"token":"', "-", "a"):
        redact(text * 6000 + "password x")

    assert time.process_time() - began < 1


@pytest.mark.parametrize("kind", ["", "RSA ", "OPENSSH ", "ENCRYPTED "])
@pytest.mark.parametrize("line", ["\n", "\r\n", "\\n", "\n    "])
def test_private_key_is_hidden_be_it_known_or_not(redact: Redactor, kind: str, line: str) -> None:
    key = line.join((f"-----BEGIN {kind}PRIVATE KEY-----", "b3Blbn", "NzaC", f"-----END {kind}PRIVATE KEY-----"))

    assert redact(f"one: {key} other: {key} and more") == "one: [private key] other: [private key] and more"


def test_private_key_that_was_cut_off_is_hidden_to_its_end(redact: Redactor) -> None:
    assert redact("it is -----BEGIN RSA PRIVATE KEY-----\nb3Blbn\nNza") == "it is [private key]"


def test_public_key_is_told(redact: Redactor) -> None:
    text = "-----BEGIN PUBLIC KEY-----\nb3Blbn\n-----END PUBLIC KEY-----"

    assert redact(text) == text


def canary(recorder: Recorder) -> Iterator[str]:
    """Sends 100 private keys through every channel of the record; gives what must not be found in it."""
    process = Processes(recorder)
    keys = [Keys.generate(f"coreos-{number}") for number in range(100)]
    for key in keys:
        if isinstance(recorder.redact, Redactor):
            recorder.redact.add("ssh host key", key.private)
        secret = [line for line in key.private.splitlines() if not line.startswith("-----")]
        yield from (line for line in secret if len(line) >= 8)
        yield base64.b64encode(key.private.encode()).decode()[:-4]
        recorder.emit("note", text=key.private)
        recorder.emit("remote", machine="m", command=f"echo '{key.private}'", status=0, stdout=key.private, stderr="")
        recorder.emit("command.ended", id="c", status=0, stdout=json.dumps({"key": key.private}), stderr=key.private)
        recorder.emit("exchange", method="PUT", url="http://x/?key=" + urllib.parse.quote(key.private), status=200)
        recorder.emit("note", text=base64.b64encode(key.private.encode()).decode())
        recorder.emit("note", text="\n".join(f"      | {line}" for line in secret))
        recorder.emit("causes", look=1, causes=[{"finding": {"deep": [key.private]}}])
        recorder.emit("journal", lines=[{"machine": "coreos-0", "time": 1.5, "text": key.private}])
    program = 'printf "%s\\n" "$1"; printf "%s\\n" "$KEY" >&2; cat'
    for key in keys[:5]:
        process.run(["sh", "-c", program, "sh", key.private], add_env={"KEY": key.private}, stdin=key.private)


def survivors(recorder: Recorder) -> list[str]:
    secret = list(canary(recorder))
    log = recorder.path.read_text()
    assert len(log) > 100_000, "the canary must have sung"
    return [part for part in secret if part in log]


def test_no_line_of_a_private_key_reaches_the_record(recorder: Recorder) -> None:
    assert survivors(recorder) == []


def test_the_canary_dies_where_nothing_is_hidden(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "open.jsonl")

    assert len(survivors(recorder)) > 500


def test_hiding_many_keys_costs_little(tmp_path: Path) -> None:
    redact, lines = Redactor(), Keys.generate("it").private.splitlines()
    for number in range(100):
        body = [base64.b64encode(os.urandom(len(line) * 3 // 4)).decode() for line in lines[1:-1]]
        redact.add(f"ssh host key {number}", "\n".join([lines[0], *body, lines[-1]]))
    recorder = Recorder(tmp_path / "events.jsonl", redact)
    text = " ".join(secrets.token_hex(8) for _ in range(60))
    coded = base64.b64encode(os.urandom(768)).decode()

    began = time.process_time()
    for number in range(500):
        recorder.emit("remote", machine="coreos-0", stdout=coded if number % 10 == 0 else text)

    assert time.process_time() - began < 0.5


def test_what_is_told_after_the_end_goes_nowhere(tmp_path: Path, events: Events, recorder: Recorder) -> None:
    """A silent machine's answer may come when the number of the file is another file's."""
    recorder.emit("note", text="in time")
    recorder.close()
    with (tmp_path / "another").open("w"):
        recorder.emit("note", text="too late")
        recorder.close()

    assert (tmp_path / "another").read_text() == "" and recorder.lost == ""
    assert [event["text"] for event in events()] == ["in time"]


def test_a_full_disk_loses_events_and_nothing_else() -> None:
    """The teardown emits events too: it must not end for them."""
    recorder = Recorder(Path("/dev/full"))
    recorder.emit("note", text="a")

    assert recorder.lost == "No space left on device"
