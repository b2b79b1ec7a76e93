"""fleet's driver: what it reads of the recorded API, and what it says against where a unit is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.drivers.fleet import Fleet, FleetMachine, Placement, Unit
from harness.errors import AnswerNotUnderstood, CommandFailed
from harness.seams.ssh import MachineUnreachable
from harness.seams.wait import NotAnswering
from tests.transcripts.machines import IDS, UNITS, RecordedMachines

MACHINE = FleetMachine(IDS["coreos-0"], "10.215.249.10", {"name": "coreos-0", "disk": "ssd", "zone": "a"})
STATES, UNITS_OF = "fleet/v1/state", "fleet/v1/units"


def unit(name: str = "some.service", **options: str | list[str]) -> Unit:
    """A unit with these [X-Fleet] options, one line a value."""
    pairs = [(key, value) for key, given in options.items() for value in ([given] if isinstance(given, str) else given)]
    return Unit(name, "launched", "launched", MACHINE.id, tuple(("X-Fleet", key, value) for key, value in pairs))


@pytest.fixture
def machines() -> RecordedMachines:
    return RecordedMachines()


@pytest.fixture
def fleet(machines: RecordedMachines) -> Fleet:
    return Fleet(machines)


def placed(fleet: Fleet, *names: str, state: str = "launched") -> dict[str, str]:
    """Unit@machine -> what speaks against it."""
    return {f"{it.unit}@{it.machine}": it.objection for it in fleet.placements(names or UNITS, state)}


def change_unit(machines: RecordedMachines, name: str, **fields: Any) -> None:
    def change(answer: Any) -> None:
        next(item for item in answer["units"] if item["name"] == name).update(fields)

    machines.change(UNITS_OF, change)


def add_option(machines: RecordedMachines, name: str, option: str, value: str) -> None:
    def change(answer: Any) -> None:
        item = next(item for item in answer["units"] if item["name"] == name)
        item["options"].append({"section": "X-Fleet", "name": option, "value": value})

    machines.change(UNITS_OF, change)


def drop_option(machines: RecordedMachines, name: str, option: str) -> None:
    def change(answer: Any) -> None:
        item = next(item for item in answer["units"] if item["name"] == name)
        item["options"] = [one for one in item["options"] if one["name"] != option]

    machines.change(UNITS_OF, change)


def publish(machines: RecordedMachines, name: str, *on: str) -> None:
    """Makes these machines the ones that publish a state of the unit."""

    def change(answer: Any) -> None:
        others = [item for item in answer["states"] if item["name"] != name]
        answer["states"] = others + [{"name": name, "machineID": IDS.get(machine, machine)} for machine in on]

    machines.change(STATES, change)


# -- the API ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [7, 22, 28, 56])
def test_api_that_does_not_answer_lists_no_machines(machines: RecordedMachines, fleet: Fleet, status: int) -> None:
    machines.fails("fleet/v1/machines", status, "curl: (22) The requested URL returned error: 503")

    assert fleet.machines() == []


def test_api_that_cannot_be_asked_is_no_empty_list(machines: RecordedMachines, fleet: Fleet) -> None:
    machines.fails("fleet/v1/machines", 127, "sh: curl: not found")

    with pytest.raises(CommandFailed, match="curl: not found"):
        fleet.machines()


def test_machine_that_does_not_answer_is_no_empty_list(machines: RecordedMachines, fleet: Fleet) -> None:
    machines.on("fleet/v1/machines", MachineUnreachable("machine coreos-0 does not answer over SSH"))

    with pytest.raises(MachineUnreachable):
        fleet.machines()


@pytest.mark.parametrize("status", [7, 22, 28, 56])
def test_registry_that_does_not_answer_is_no_empty_registry(
    machines: RecordedMachines, fleet: Fleet, status: int
) -> None:
    machines.fails("fleet/v1/", status, "curl: The requested URL returned error: 503")

    for ask in (fleet.units, fleet.states, lambda: fleet.placements(UNITS, "launched")):
        with pytest.raises(NotAnswering, match="503") as raised:
            ask()
        assert raised.value.status_seen == status


@pytest.mark.parametrize("status", [2, 3, 127, 255])
def test_command_that_cannot_ask_is_not_waited_for(machines: RecordedMachines, fleet: Fleet, status: int) -> None:
    machines.fails("fleet/v1/units", status, "sh: curl: not found")

    with pytest.raises(CommandFailed, match="not found") as raised:
        fleet.units()

    assert not isinstance(raised.value, NotAnswering)


@pytest.mark.parametrize("answer", ["", "<html>", "[]", "null", '"units"', '{"units": 1}', '{"units": [1'])
def test_answer_that_is_junk(machines: RecordedMachines, fleet: Fleet, answer: str) -> None:
    machines.on("fleet/v1/units", answer)

    with pytest.raises(AnswerNotUnderstood, match="fleet API /units"):
        fleet.units()


@pytest.mark.parametrize("answer", ['{"machines": [{}]}', '{"machines": ["coreos-0"]}'])
def test_machine_without_an_id_is_junk(machines: RecordedMachines, fleet: Fleet, answer: str) -> None:
    machines.on("fleet/v1/machines", answer)

    with pytest.raises(AnswerNotUnderstood):
        fleet.machines()


def test_collection_that_is_left_out_is_empty(machines: RecordedMachines, fleet: Fleet) -> None:
    machines.on("fleet/v1", "{}")

    assert (fleet.machines(), fleet.units(), fleet.states()) == ([], {}, {})


def test_every_page_is_read(machines: RecordedMachines, fleet: Fleet) -> None:
    items = json.loads(machines.recorded[UNITS_OF]["coreos-0"])["units"]
    pages = {
        "/units''": {"units": items[:1], "nextPageToken": "ZAABAA=="},
        "nextPageToken=ZAABAA==": {"units": items[1:], "nextPageToken": "ZAACAA=="},
        "nextPageToken=ZAACAA==": {"units": []},  # fleet adds an empty page to a full one
    }
    for text, page in pages.items():
        machines.on(text, json.dumps(page))

    assert sorted(fleet.units()) == UNITS
    assert [command.rpartition("/")[2] for _, command in machines.asked] == [
        "units''",
        "units'?nextPageToken=ZAABAA=='",
        "units'?nextPageToken=ZAACAA=='",
    ]


def test_page_in_the_middle_that_is_junk(machines: RecordedMachines, fleet: Fleet) -> None:
    machines.on("/state''", '{"states": [], "nextPageToken": "more"}').on("nextPageToken=more", "junk")

    with pytest.raises(AnswerNotUnderstood):
        fleet.states()


def test_only_the_entry_point_is_asked(machines: RecordedMachines, fleet: Fleet) -> None:
    fleet.machines()
    fleet.units()
    fleet.states()

    assert {name for name, _ in machines.asked} == {"coreos-0"}


def test_recorded_machines(fleet: Fleet) -> None:
    assert {machine.name: machine.id for machine in fleet.machines()} == IDS
    assert {machine.address for machine in fleet.machines()} == set(RecordedMachines().addresses.values())


def test_machine_without_a_name_is_called_by_its_id() -> None:
    assert FleetMachine(IDS["coreos-0"], "", {}).name == "c98e7caf"


def test_recorded_units(fleet: Fleet) -> None:
    blog = fleet.units()["blog.service"]

    assert (blog.desired, blog.current, blog.machine_id) == ("launched", "launched", IDS["coreos-0"])
    assert blog.requirements.metadata == {"name": {"coreos-0"}}
    assert not blog.is_global


def test_recorded_states(fleet: Fleet) -> None:
    assert fleet.states() == {name: {IDS["coreos-0"]} for name in (*UNITS, "jpblog.service")}


# -- rules -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "allowed"),
    [
        ([], True),
        (["name=coreos-0"], True),
        (["name=coreos-1"], False),
        (["name=coreos-0", "disk=ssd"], True),  # different keys: all
        (["name=coreos-0", "disk=hdd"], False),
        (["zone=a", "zone=b"], True),  # the same key: one of them
        (["zone=b", "zone=c"], False),
        (["zone=a", "zone=b", "disk=hdd"], False),
        (['"zone=a" "disk=ssd"'], True),  # several of a line, in quotes
        (['"zone=a" "disk=hdd"'], False),
        (["colour=red"], False),
        (["zone="], True),  # fleet ignores what is not key=value
        (["zone"], True),
        (["zone=b=c"], True),
        (["zone=b disk=hdd"], True),  # unquoted, two pairs are one value with two equals signs
        (['"zone=b" "disk=hdd" "name"'], False),
        (['"zone=b"  "disk=ssd"'], False),
    ],
)
def test_machine_metadata(metadata: list[str], allowed: bool) -> None:
    assert unit(MachineMetadata=metadata).allows(MACHINE) is allowed


@pytest.mark.parametrize(
    ("machine_id", "allowed"),
    [(IDS["coreos-0"], True), (IDS["coreos-0"][:8], True), (IDS["coreos-1"], False), (IDS["coreos-1"][:8], False)],
)
def test_machine_id_is_whole_or_its_beginning(machine_id: str, allowed: bool) -> None:
    assert unit(MachineID=machine_id).allows(MACHINE) is allowed


def test_machine_id_and_metadata_must_both_allow() -> None:
    assert not unit(MachineID=IDS["coreos-0"], MachineMetadata="zone=b").allows(MACHINE)


def test_options_of_other_sections_are_no_rules() -> None:
    plain = Unit("some.service", "launched", "launched", "", (("Service", "MachineID", "nowhere"),))

    assert plain.allows(MACHINE)


@pytest.mark.parametrize(
    ("lines", "is_global"),
    [
        ([], False),
        (["true"], True),
        (["True"], True),
        (["yes"], True),
        (["1"], True),
        (["on"], True),
        (["t"], True),
        (["false"], False),
        (["no"], False),
        (["true", "false"], False),  # the last line wins
        (["false", "true"], True),
    ],
)
def test_global(lines: list[str], is_global: bool) -> None:
    assert unit(Global=lines).is_global is is_global


# -- placements ------------------------------------------------------------------------------------------------------


def test_recorded_units_are_where_their_rules_allow(fleet: Fleet) -> None:
    assert fleet.placements(UNITS, "launched") == [
        Placement("blog.service", "coreos-0", ""),
        Placement("entry.service", "coreos-0", ""),
    ]


def test_unit_that_fleet_does_not_know(fleet: Fleet) -> None:
    assert placed(fleet, "ghost.service") == {"ghost.service@": "not in fleet's registry"}


def test_unit_on_a_machine_that_its_rules_forbid(machines: RecordedMachines, fleet: Fleet) -> None:
    change_unit(machines, "blog.service", machineID=IDS["coreos-2"])
    publish(machines, "blog.service", "coreos-2")

    assert placed(fleet)["blog.service@coreos-2"] == "its MachineID or MachineMetadata forbids this machine"
    assert placed(fleet)["entry.service@coreos-0"] == ""


@pytest.mark.parametrize("machine_id", ["", None])
def test_unit_on_no_machine(machines: RecordedMachines, fleet: Fleet, machine_id: str | None) -> None:
    fields = {} if machine_id is None else {"machineID": machine_id}
    machines.change(UNITS_OF, lambda answer: [item.pop("machineID") for item in answer["units"]])
    change_unit(machines, "blog.service", currentState="inactive", **fields)

    assert placed(fleet)["blog.service@"] == "on no machine (1 would be allowed)"


def test_unit_that_no_machine_may_have(machines: RecordedMachines, fleet: Fleet) -> None:
    change_unit(machines, "blog.service", machineID="")
    add_option(machines, "blog.service", "MachineMetadata", "disk=ssd")

    assert placed(fleet)["blog.service@"] == "on no machine (0 would be allowed)"


def test_unit_on_a_machine_that_is_gone(machines: RecordedMachines, fleet: Fleet) -> None:
    change_unit(machines, "blog.service", machineID="f" * 32)

    assert placed(fleet)["blog.service@"] == "no machine of the cluster"


@pytest.mark.parametrize(
    ("wanted", "current", "objection"),
    [
        ("launched", "loaded", "state is loaded, not launched"),
        ("launched", "inactive", "state is inactive, not launched"),
        ("loaded", "inactive", "state is inactive, not loaded"),
        ("loaded", "launched", "state is launched, not loaded"),
        ("loaded", "", "state is unknown, not loaded"),
        ("loaded", "loaded", ""),
    ],
)
def test_unit_in_another_state(
    machines: RecordedMachines, fleet: Fleet, wanted: str, current: str, objection: str
) -> None:
    change_unit(machines, "blog.service", currentState=current)

    assert placed(fleet, "blog.service", state=wanted) == {"blog.service@coreos-0": objection}


def test_unit_of_which_its_machine_reports_no_state(machines: RecordedMachines, fleet: Fleet) -> None:
    publish(machines, "blog.service", "coreos-1")

    assert placed(fleet)["blog.service@coreos-0"] == "the machine reports no state of it"


@pytest.mark.parametrize("others", [["coreos-1"], ["coreos-2"], ["coreos-1", "coreos-2"], ["f" * 32]])
def test_unit_that_another_machine_reports_too(machines: RecordedMachines, fleet: Fleet, others: list[str]) -> None:
    """It was taken for lost and came back: until it has stopped its copy, two run."""
    publish(machines, "blog.service", "coreos-0", *others)

    objection = f"{1 + len(others)} machines report a state of it"
    assert placed(fleet) == {"blog.service@coreos-0": objection, "entry.service@coreos-0": ""}


def test_unit_that_two_others_report(machines: RecordedMachines, fleet: Fleet) -> None:
    publish(machines, "blog.service", "coreos-1", "coreos-2")

    assert placed(fleet)["blog.service@coreos-0"] == "the machine reports no state of it"


def test_machine_of_a_unit_that_is_elsewhere(machines: RecordedMachines, fleet: Fleet) -> None:
    drop_option(machines, "blog.service", "MachineMetadata")
    add_option(machines, "blog.service", "MachineOf", "entry.service")
    assert placed(fleet)["blog.service@coreos-0"] == ""

    change_unit(machines, "blog.service", machineID=IDS["coreos-1"])
    publish(machines, "blog.service", "coreos-1")

    assert placed(fleet)["blog.service@coreos-1"] == "not where entry.service is"


def add_unit(machines: RecordedMachines, name: str, machine: str, *machine_of: str) -> None:
    """A unit that is launched on this machine, where these others are."""
    options = [{"section": "X-Fleet", "name": "MachineOf", "value": value} for value in machine_of]
    item = {"name": name, "desiredState": "launched", "currentState": "launched", "machineID": IDS[machine]}
    machines.change(UNITS_OF, lambda answer: answer["units"].append(item | {"options": options}))
    publish(machines, name, machine)


@pytest.mark.parametrize("instance", ["2", "10", "a.b", "a@b"])
def test_sidekick_of_an_instance_is_where_that_instance_is(
    machines: RecordedMachines, fleet: Fleet, instance: str
) -> None:
    """%i of MachineOf is what stands behind the @ of the sidekick's own name; other instances are elsewhere."""
    sidekick = f"reg@{instance}.service"
    add_unit(machines, "app@1.service", "coreos-0")
    add_unit(machines, "app@%i.service", "coreos-0")
    add_unit(machines, f"app@{instance}.service", "coreos-1")
    add_unit(machines, sidekick, "coreos-1", "app@%i.service")

    assert placed(fleet, sidekick) == {f"{sidekick}@coreos-1": ""}


@pytest.mark.parametrize("instance", ["2", "10", "a.b", "a@b"])
def test_sidekick_of_an_instance_that_is_elsewhere(machines: RecordedMachines, fleet: Fleet, instance: str) -> None:
    sidekick = f"reg@{instance}.service"
    add_unit(machines, "app@1.service", "coreos-1")
    add_unit(machines, f"app@{instance}.service", "coreos-2")
    add_unit(machines, sidekick, "coreos-1", "app@%i.service")

    assert placed(fleet, sidekick) == {f"{sidekick}@coreos-1": f"not where app@{instance}.service is"}


@pytest.mark.parametrize("pattern", ["entry.service", "en*.service", "entry.*", "other.service entry.service"])
def test_conflict_with_a_unit_that_is_there_too(machines: RecordedMachines, fleet: Fleet, pattern: str) -> None:
    add_option(machines, "blog.service", "Conflicts", pattern)

    assert placed(fleet)["blog.service@coreos-0"] == "conflicts with entry.service, which is there too"


@pytest.mark.parametrize("pattern", ["entry@*.service", "jpblog.service", "ENTRY.service", "blog.service", "*log*"])
def test_conflict_with_none_that_is_there(machines: RecordedMachines, fleet: Fleet, pattern: str) -> None:
    add_option(machines, "blog.service", "Conflicts", pattern)

    assert placed(fleet)["blog.service@coreos-0"] == ""


def test_conflict_with_a_unit_on_another_machine(machines: RecordedMachines, fleet: Fleet) -> None:
    add_option(machines, "blog.service", "Conflicts", "entry.service")
    change_unit(machines, "entry.service", machineID=IDS["coreos-1"])

    assert placed(fleet)["blog.service@coreos-0"] == ""


# -- global units ----------------------------------------------------------------------------------------------------


@pytest.fixture
def everywhere(machines: RecordedMachines) -> RecordedMachines:
    """blog.service is global, and on every machine; the registry keeps no state of such units."""
    drop_option(machines, "blog.service", "MachineMetadata")
    add_option(machines, "blog.service", "Global", "true")
    change_unit(machines, "blog.service", currentState="inactive", machineID="")
    publish(machines, "blog.service", *IDS)
    return machines


def test_global_unit_on_every_machine(everywhere: RecordedMachines, fleet: Fleet) -> None:
    assert placed(fleet, "blog.service") == {f"blog.service@{name}": "" for name in IDS}


def test_global_unit_that_lacks_a_machine(everywhere: RecordedMachines, fleet: Fleet) -> None:
    publish(everywhere, "blog.service", "coreos-0", "coreos-2")

    assert set(placed(fleet, "blog.service").values()) == {"global, but on 2 of 3 machines"}


def test_global_unit_on_no_machine(everywhere: RecordedMachines, fleet: Fleet) -> None:
    publish(everywhere, "blog.service")

    assert placed(fleet, "blog.service") == {"blog.service@": "on no machine (3 would be allowed)"}


def test_global_unit_where_its_metadata_forbids(everywhere: RecordedMachines, fleet: Fleet) -> None:
    add_option(everywhere, "blog.service", "MachineMetadata", "name=coreos-1")

    assert placed(fleet, "blog.service")["blog.service@coreos-0"].endswith("forbids this machine")


def test_global_unit_on_the_machines_that_its_metadata_allows(everywhere: RecordedMachines, fleet: Fleet) -> None:
    add_option(everywhere, "blog.service", "MachineMetadata", "name=coreos-1")
    publish(everywhere, "blog.service", "coreos-1")

    assert placed(fleet, "blog.service") == {"blog.service@coreos-1": ""}
