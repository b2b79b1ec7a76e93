"""The cluster drawn: what is in the pictures, where what is wrong is marked, and what the report does with them."""

from __future__ import annotations

import copy
import re
import time
from pathlib import Path
from typing import Any

import pytest

from harness.reports.drawing import Drawing, Tile, draw
from harness.reports.html import looks_shown, render_html
from harness.reports.ways import Way
from harness.snapshot.data import Container, Registration
from tests.reports.reports import app_failed, document, fifty_scenarios, found
from tests.reports.test_html import HOSTILE, Page
from tests.rules.cases import CASES, ONE, RUNS_AT, look
from tests.transcripts.snapshots import REMOVED, changed, green, grown, silent

BROKEN = [pytest.param(it, id=f"{rule}-{n}") for rule, cases in CASES.items() for n, (it, _) in enumerate(cases)]


def tile(drawing: Drawing, name: str) -> Tile:
    return next(tile for tile in drawing.tiles if tile.name == name)


def way(drawing: Drawing, site: str = "blog") -> Way:
    return next(way for way in drawing.ways if way.site == site)


# -- machines --------------------------------------------------------------------------------------------------------


def test_a_tile_has_what_its_machine_is_and_runs() -> None:
    drawing = draw(green(), [])

    assert [(it.name, it.address) for it in drawing.tiles] == list(green().intended.machines.items())
    assert tile(drawing, "coreos-0").signs == ("etcd leader", "entry point")
    assert tile(drawing, "coreos-1").signs == ("etcd member",)
    assert tile(drawing, "coreos-2").signs == ("etcd member", "names lead here")
    assert tile(drawing, "coreos-2").runs == [
        "docker", "etcd", "fleet", "blog :32768", "blog-docker-reg", "entry-name",
        "blog-dynamic-amb coreos-2:32768 UP", "entry blog, jpblog", "etcd-amb", "jpblog-dynamic-amb coreos-0:32769 UP",
    ]  # fmt: skip
    assert not any(it.stands_still or it.marked("cause") or it.marked("follows") for it in drawing.tiles)


def test_what_does_not_run_is_told_with_its_state() -> None:
    drawing = draw(app_failed(), [])

    assert tile(drawing, "coreos-2").stands_still == ["blog failed (failed)"]
    assert "blog-dynamic-amb coreos-2:32768 DOWN" in tile(drawing, "coreos-1").runs


def test_a_silent_machine_is_shown_silent_with_what_fleet_has_there() -> None:
    lost = tile(draw(silent(green(), "coreos-2"), []), "coreos-2")

    assert lost.silent == "timed out" and lost.signs == ("names lead here",)
    assert lost.runs == [] and "blog not seen" in lost.stands_still and len(lost.stands_still) == 7


def test_a_machine_that_was_not_looked_at_is_silent() -> None:
    assert tile(draw(look({ONE: REMOVED}), []), "coreos-1").silent == "not looked at"


def test_several_servers_are_counted() -> None:
    two = look({f"{ONE}.ambassadors.blog": {RUNS_AT: "UP", "192.0.2.10:32770": "DOWN"}})

    assert "blog-dynamic-amb 1 of 2 UP" in tile(draw(two, []), "coreos-1").runs


# -- what is wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", BROKEN)
def test_whatever_is_wrong_is_marked_where_it_is(changes: Any) -> None:
    """Each cause, and each consequence, of every rule's cases."""
    now = look(changes)
    listed = found(now)
    drawing = draw(now, listed)

    whole = {thing.name: thing.mark for thing in drawing.whole}
    for cause in listed:
        for finding, marks in [(cause["finding"], {"cause"})] + [
            (it, {"cause", "follows"}) for it in cause["consequences"]
        ]:
            kind, name, machine = finding["subject"]
            if machine in now.intended.machines:
                assert any(tile(drawing, machine).marked(mark) for mark in marks), finding["about"]
            else:
                assert whole[f"{kind} {name}".strip() + f" on {machine}" * bool(machine)] in marks
    assert bool(listed) == bool(whole or any(it.marked("cause") for it in drawing.tiles))


def test_a_cause_is_marked_and_what_follows_is_pale() -> None:
    drawing = draw(app_failed(), found(app_failed()))

    assert tile(drawing, "coreos-2").marked("cause") == ["blog failed (failed)"]
    assert tile(drawing, "coreos-0").marked("follows") == ["site blog status 503"]
    assert [it.glyph for it in way(drawing).instances] == ["cause"]
    assert {row.glyph for row in way(drawing).rows} == {"follows"}
    assert {it.glyph for it in (*way(drawing, "jpblog").rows, *way(drawing, "jpblog").instances)} == {"on"}


def test_a_lost_machine_is_the_cause_and_its_units_follow() -> None:
    now = silent(green(), "coreos-2")
    lost = tile(draw(now, found(now)), "coreos-2")

    assert lost.mark == "cause" and lost.marked("cause") == ["the machine: timed out"]
    assert "blog not seen" in lost.marked("follows")


def test_a_unit_that_is_wrong_wherever_it_runs_is_told_once_and_pale_on_its_machines() -> None:
    now = look({"fleet.units.entry.service.desired": "loaded"})
    drawing = draw(now, found(now))

    assert [(it.name, it.mark) for it in drawing.whole] == [("unit entry.service", "cause")]
    assert [it.marked("follows") for it in drawing.tiles] == [["entry blog, jpblog"]] * 3


# -- ways ------------------------------------------------------------------------------------------------------------


def test_ways_lead_from_the_name_to_the_instance() -> None:
    drawn = way(draw(green(), []))

    assert drawn.leads == "leads to 192.0.2.12, coreos-2" and drawn.glyph == "on"
    assert [(row.label, row.answer, row.ambassador, row.led) for row in drawn.rows] == [
        ("coreos-0", "200", "1 UP", False), ("coreos-1", "200", "1 UP", False), ("coreos-2", "200", "1 UP", True),
    ]  # fmt: skip
    assert [(it.label, it.says) for it in drawn.instances] == [("coreos-2:32768", "registered")]
    assert len(drawn.lines) == 3 and all(line.up for line in drawn.lines)
    assert drawn.led_y == drawn.rows[2].y < drawn.height


@pytest.mark.parametrize(
    ("changes", "leads", "led"),
    [
        ({"outside.names.genkisugimoto.com": ""}, "leads nowhere", None),
        ({"outside.names.genkisugimoto.com": "198.51.100.9"}, "leads to 198.51.100.9, no machine", None),
        ({"outside.names": None}, "no name server; entry point 192.0.2.10", "coreos-0"),
    ],
)
def test_a_name_leads_where_it_does(changes: Any, leads: str, led: str | None) -> None:
    drawn = way(draw(look(changes), []))

    assert drawn.leads == leads
    assert next((row.label for row in drawn.rows if row.led), None) == led


@pytest.mark.parametrize(
    ("changes", "instances"),
    [
        ({"services.blog": {}}, [("coreos-2:32768", "not registered", "off")]),
        ({"services": None}, [("coreos-2:32768", "not registered", "off")]),
        ({"machines.coreos-2.containers.blog": REMOVED}, [("coreos-2:32768", "not seen to run", "off")]),
        ({"machines.coreos-2.containers": None}, [("coreos-2:32768", "not seen to run", "off")]),
        (
            {"services.blog.injected-0": Registration("nonsense", "", 5)},
            [("coreos-2:32768", "registered", "on"), ("injected-0", "not seen to run", "off")],
        ),
        (
            {
                f"{ONE}.containers.blog-2": Container("x", "running", {80: ("192.0.2.11:32780",)}),
                "services.blog.coreos-1:blog-2": Registration("{}", "192.0.2.11:32780", 5),
            },
            [("coreos-1:32780", "registered", "on"), ("coreos-2:32768", "registered", "on")],
        ),
    ],
)
def test_instances_are_those_that_run_or_are_said_to(changes: Any, instances: list[tuple[str, str, str]]) -> None:
    drawn = way(draw(look(changes), []))

    assert [(it.label, it.says, it.glyph) for it in drawn.instances] == instances


def test_a_server_that_is_down_has_a_broken_line() -> None:
    drawn = way(draw(app_failed(), []))

    assert [line.up for line in drawn.lines] == [False] * 3
    assert {row.ambassador for row in drawn.rows} == {"0/1 UP"} and {row.answer for row in drawn.rows} == {"503"}


def test_of_many_machines_those_that_are_alike_are_one_row() -> None:
    now = changed(silent(grown(green(), 40), "coreos-7", "coreos-9"), {"outside.sites.blog.coreos-31.status": 502})
    drawn = way(draw(now, []))

    assert [(row.label, row.answer) for row in drawn.rows] == [
        ("36 machines", "200"), ("coreos-2", "200"), ("2 machines", "silent"), ("coreos-31", "502"),
    ]  # fmt: skip
    assert drawn.height < 250


# -- many machines ---------------------------------------------------------------------------------------------------


def test_a_small_tile_says_only_what_is_special() -> None:
    now = changed(
        silent(grown(app_failed(), 40), "coreos-7"), {"machines.coreos-31.units.etcd-amb.service.sub": "dead"}
    )
    drawing = draw(now, [])

    said = {it.name: [line.name for line in it.lines] for it in drawing.tiles}
    assert said["coreos-0"] == ["jpblog", "jpblog-docker-reg"]
    assert said["coreos-2"] == ["blog", "blog-docker-reg", "entry-name"]
    assert said["coreos-7"] == ["blog-dynamic-amb", "entry", "etcd-amb", "jpblog-dynamic-amb"]
    assert said["coreos-31"] == ["etcd-amb"] and said["coreos-30"] == []
    assert drawing.small and not draw(green(), []).small
    heights = [it.height for it in drawing.tiles]
    assert heights == sorted(heights, reverse=True) and len({it.height for it in draw(green(), []).tiles}) == 1


def test_a_small_tile_has_room_for_what_is_wrong() -> None:
    now = grown(green(), 40)
    subjects = [["room", f"/mnt/{index}", "coreos-1"] for index in range(9)]
    findings = [
        {"subject": it, "seen": "full", "about": "x", "expected": "room", "rule": "x", "layer": "unit"}
        for it in subjects
    ]
    drawing = draw(now, [{"finding": it, "consequences": []} for it in findings])

    assert [line.name for line in tile(drawing, "coreos-1").lines] == [
        "room /mnt/0", "room /mnt/1", "room /mnt/2", "and 6 more",
    ]  # fmt: skip
    assert len(tile(drawing, "coreos-1").marked("cause")) == 9


# -- in the report ---------------------------------------------------------------------------------------------------


def test_pictures_have_a_name_and_say_the_same_in_words() -> None:
    now = app_failed()
    source = render_html(document(now), {1: now})
    seen = Page(source)

    pictures = [attributes for tag, attributes in seen.elements if tag == "svg" and attributes.get("role") == "img"]
    ids = [attributes["id"] for _, attributes in seen.elements if "id" in attributes]
    assert len(pictures) == 5 and len(ids) == len(set(ids))
    for picture in pictures:
        assert picture["aria-labelledby"] in ids and picture["aria-describedby"] in ids
    assert "Wrong: blog failed (failed)." in seen.text
    assert "follows: site blog status 503" in seen.text
    assert (
        "genkisugimoto.com leads to 192.0.2.12, coreos-2. Entry points: coreos-0 503, ambassador 0/1 UP;" in seen.text
    )
    used = {attributes["href"] for tag, attributes in seen.elements if tag == "use"}
    assert used <= {f"#{it}" for it in ids}


def test_two_looks_are_drawn_where_the_last_is_not_that_of_the_causes() -> None:
    run = document(app_failed(), look=3)
    run["artefacts"].append({"path": "/a/run/snapshots/0012.json", "about": "look 12", "t": 0})

    assert looks_shown(run) == {3: "where the causes were found", 12: "the last look of the run"}
    seen = Page(render_html(run, {3: app_failed(), 12: green()}))
    assert seen.text.index("Look 3, where the causes were found") < seen.text.index("Look 12, the last look of the run")
    run["artefacts"].pop()
    assert looks_shown(run) == {3: "where the causes were found"}


def test_without_a_snapshot_a_line_says_why() -> None:
    run = document(app_failed())

    assert (
        "no drawing, its snapshot is not on record."
        in Page(render_html(run, {1: "its snapshot is not on record"})).text
    )
    assert "no drawing, its snapshot was not given." in Page(render_html(run)).text


def test_a_run_that_did_not_look_says_nothing_of_it() -> None:
    run = document(green())
    run["artefacts"] = [{"path": "evidence/x", "about": "x", "t": 0}]

    assert looks_shown(run) == {} and "The cluster" not in Page(render_html(run)).text


def test_hostile_names_are_names() -> None:
    now = look(
        {
            f"{ONE}.silent": HOSTILE,
            "services.blog.x": Registration(HOSTILE, HOSTILE, 5),
            "intended.sites": {HOSTILE: HOSTILE, "blog": "genkisugimoto.com"},
        }
    )
    source = render_html(document(green()), {1: now})
    seen = Page(source)

    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\ud800-\udfff]", source)
    assert "<script>" in seen.text and "script" not in {tag for tag, _ in seen.elements}
    assert not any(name.startswith("on") for _, attributes in seen.elements for name in attributes)


def test_drawing_is_a_pure_function() -> None:
    now, run = app_failed(), document(app_failed())
    before = copy.deepcopy(run)

    assert render_html(run, {1: now}) == render_html(run, {1: now}) and run == before


@pytest.mark.parametrize("broken", [False, True])
def test_drawing_of_forty_machines_is_small_and_quick(broken: bool) -> None:
    now = grown(app_failed(), 40) if broken else grown(green(), 40)
    run = document(now)
    began = time.process_time()
    drawn = render_html(run, {1: now})
    assert time.process_time() - began < 1
    bare = len(render_html(run | {"artefacts": [], "causes_look": 0}).encode())
    assert len(drawn.encode()) - bare < 150_000


def test_report_of_fifty_scenarios_stays_small(tmp_path: Path) -> None:
    run, snapshots = fifty_scenarios(tmp_path)
    began = time.process_time()
    source = render_html(run, snapshots)
    assert time.process_time() - began < 2
    assert len(source.encode()) < 1_000_000
    assert Page(source).text.count("Requests to blog") == 50 and "Look 12, the last look of the run" in source


def test_picture_has_no_number_without_end() -> None:
    assert not re.search(r"\d\.\d{4,}", render_html(document(app_failed()), {1: app_failed()}))
