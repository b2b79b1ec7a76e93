"""Terraform's driver: what it reads of a recorded plan with the real target's queries, and the commands it builds."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from harness.drivers import terraform as module
from harness.drivers.terraform import Outputs, Plan, Terraform, target_data, why
from harness.errors import AnswerNotUnderstood, CommandFailed, ExitStatus, Misconfigured, PlatformWrong, ReadOnly
from tests.fakes import FakeRunner
from tests.transcripts.machines import document

LOCAL = Path(__file__).parent.parent.parent / "infra/local"
MADE = ["coreos-0", "coreos-1", "coreos-2"]
NAMES = ["entrypoint-ip", "entry-points", "machines", "ssh-user", "known-hosts", "sites", "name-server"]


def read(plan: Any) -> Plan:
    return Plan.read(plan, target_data(LOCAL))


def resources(plan: Any) -> list[Any]:
    return list(plan["planned_values"]["root_module"]["resources"])


def give(plan: Any, index: int, **values: Any) -> None:
    """Changes a machine of the plan, in both places where a plan holds it."""
    for held in (resources(plan)[index]["values"], plan["resource_changes"][index]["change"]["after"]):
        held.update(values)


def one_more(plan: Any, actions: list[str], **values: Any) -> Any:
    """The plan with a copy of its last container, changed, in both places where a plan holds a resource."""
    change, resource = json.loads(json.dumps([plan["resource_changes"][-1], resources(plan)[-1]]))
    after = {**change["change"]["after"], **values}
    change |= {"address": "docker_container.more", "change": {"actions": actions, "before": None, "after": after}}
    resource |= {"address": "docker_container.more", "values": after}
    plan["resource_changes"].append(change)
    plan["planned_values"]["root_module"]["resources"].append(resource)
    return plan


# -- plans -----------------------------------------------------------------------------------------------------------


def test_plan_of_the_recorded_cluster() -> None:
    plan = read(document("plan.json"))

    assert plan.made == MADE
    assert plan.destroyed == []
    assert len(plan.changed) == 3
    assert plan.openings == []


def test_plan_with_one_machine_more() -> None:
    plan = read(one_more(document("plan.json"), ["create"], hostname="coreos-3", name="platform-run-coreos-3"))

    assert plan.made == [*MADE, "coreos-3"]


@pytest.mark.parametrize("hostname", [None, ""])
def test_plan_with_a_container_without_a_host_name(hostname: str | None) -> None:
    plan = read(one_more(document("plan.json"), ["create"], hostname=hostname, name="stowaway"))

    assert plan.made == [*MADE, "stowaway"]


def test_plan_with_a_container_of_another_resource() -> None:
    plan = one_more(document("plan.json"), ["create"], hostname="miner", name="miner")
    plan["resource_changes"][-1]["name"] = "helper"

    assert "miner" in read(plan).made


def test_plan_with_a_container_in_a_module_of_its_own() -> None:
    plan = one_more(document("plan.json"), ["create"], hostname="deep", name="deep", ports=[{"internal": 2379}])
    root = plan["planned_values"]["root_module"]
    root["child_modules"] = [{"address": "module.deep", "resources": [root["resources"].pop()]}]

    assert "deep" in read(plan).made


def test_plan_with_an_opening_in_a_module_of_its_own() -> None:
    plan = one_more(document("plan.json"), ["create"], hostname="deep", name="deep", ports=[{"internal": 2379}])
    root = plan["planned_values"]["root_module"]
    root["child_modules"] = [{"address": "module.deep", "resources": [root["resources"].pop()]}]

    assert read(plan).openings == [2379]


@pytest.mark.parametrize("actions", [["delete"], ["delete", "create"], ["create", "delete"]])
def test_plan_that_destroys_names_the_address(actions: list[str]) -> None:
    plan = document("plan.json")
    plan["resource_changes"][1]["change"]["actions"] = actions

    assert read(plan).destroyed == ['docker_container.machine["coreos-1"]']


def test_plan_that_replaces_a_machine_makes_it_too() -> None:
    plan = document("plan.json")
    plan["resource_changes"][1]["change"]["actions"] = ["delete", "create"]

    assert read(plan).made == MADE


def test_plan_that_deletes_a_machine_does_not_make_it() -> None:
    plan = document("plan.json")
    plan["resource_changes"][1]["change"] |= {"actions": ["delete"], "after": None}

    assert read(plan).made == ["coreos-0", "coreos-2"]


def test_plan_that_destroys_something_that_is_no_machine() -> None:
    plan = document("plan.json")
    network = {"address": "docker_network.own", "mode": "managed", "type": "docker_network", "name": "own"}
    plan["resource_changes"].append(network | {"change": {"actions": ["delete"], "before": {}, "after": None}})

    assert read(plan).destroyed == ["docker_network.own"]


@pytest.mark.parametrize(
    ("values", "opening"),
    [
        ({"ports": [{"internal": 2379, "external": 2379, "ip": "0.0.0.0", "protocol": "tcp"}]}, 2379),
        ({"publish_all_ports": True}, "all ports"),
        ({"network_mode": "host"}, "all ports"),
    ],
)
def test_plan_that_opens_more(values: dict[str, Any], opening: object) -> None:
    plan = document("plan.json")
    give(plan, 0, **values)

    assert read(plan).openings == [opening]


def test_plan_that_opens_in_several_ways_shows_each() -> None:
    plan = document("plan.json")
    give(plan, 0, ports=[{"internal": 22}, {"internal": 2379}])
    give(plan, 2, ports=[{"internal": 80}], network_mode="host")

    assert read(plan).openings == [22, 2379, 80, "all ports"]


@pytest.mark.parametrize("ports", [None, []])
def test_plan_without_published_ports(ports: list[Any] | None) -> None:
    plan = document("plan.json")
    for index in range(3):
        give(plan, index, ports=ports, publish_all_ports=False)

    assert read(plan).openings == []


def test_plan_that_changes_nothing() -> None:
    plan = document("plan.json")
    for change in plan["resource_changes"]:
        change["change"]["actions"] = ["no-op"]
    data = {"address": "data.docker_network.ground", "mode": "data", "type": "docker_network", "name": "ground"}
    plan["resource_changes"].append(data | {"change": {"actions": ["read"], "before": None, "after": {}}})
    plan["output_changes"] = {}

    assert read(plan) == Plan(made=[], destroyed=[], changed=[], openings=[])


def test_plan_without_any_resource() -> None:
    assert read({"format_version": "1.2", "planned_values": {"root_module": {}}}) == Plan([], [], [], [])


@pytest.mark.parametrize("actions", [["update"], ["create"], ["delete"], ["delete", "create"], ["forget"]])
def test_plan_that_is_not_empty_names_what_changes(actions: list[str]) -> None:
    plan = document("plan.json")
    for change in plan["resource_changes"]:
        change["change"]["actions"] = ["no-op"]
    plan["resource_changes"][2]["change"]["actions"] = actions

    lines = read(plan).changed
    assert lines and all(line.startswith('docker_container.machine["coreos-2"]') for line in lines)


# -- what the target says of itself ----------------------------------------------------------------------------------


def test_target_without_its_data_is_no_target(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="is no target"):
        target_data(tmp_path)


def terraform(runner: FakeRunner, folder: Path = Path("/nowhere")) -> Terraform:
    return Terraform(runner, folder, {"PATH": "/bin"}, "../../terraform.tfvars")


def test_outputs_before_anything_was_applied(runner: FakeRunner) -> None:
    runner.on("terraform output", stdout="{}\n")

    with pytest.raises(PlatformWrong, match="nothing has been applied") as raised:
        terraform(runner).outputs()

    assert raised.value.status == ExitStatus.PLATFORM_WRONG
    assert raised.value.paste == "terraform -chdir=/nowhere output"


@pytest.mark.parametrize("name", NAMES)
def test_outputs_with_one_missing(runner: FakeRunner, name: str) -> None:
    outputs = document("outputs.json")
    del outputs[name]
    runner.on("terraform output", stdout=json.dumps(outputs))

    with pytest.raises(AnswerNotUnderstood, match=name):
        terraform(runner).outputs()


def values_of_outputs() -> dict[str, Any]:
    return {name: output["value"] for name, output in document("outputs.json").items()}


@pytest.mark.parametrize("name", NAMES)
def test_outputs_from_elsewhere_with_one_missing(name: str) -> None:
    raw = values_of_outputs()
    del raw[name]

    with pytest.raises(AnswerNotUnderstood, match=f"terraform output not understood: no output '{name}'") as raised:
        Outputs.read(raw)
    assert raised.value.seen == str(sorted(raw))


def test_outputs_from_elsewhere_are_those_that_terraform_gives(runner: FakeRunner) -> None:
    runner.on("terraform output", stdout=json.dumps(document("outputs.json")))

    assert Outputs.read({**values_of_outputs(), "more": 1}) == terraform(runner).outputs()


@pytest.mark.parametrize("answer", ["", "Warning: No outputs found", "[]", "null", '{"machines": '])
def test_outputs_that_are_junk(runner: FakeRunner, answer: str) -> None:
    runner.on("terraform output", stdout=answer)

    with pytest.raises(AnswerNotUnderstood, match="terraform output"):
        terraform(runner).outputs()


def test_outputs_when_terraform_fails(runner: FakeRunner) -> None:
    runner.on("terraform output", status=1, stderr="Error: state is locked")

    with pytest.raises(CommandFailed, match="state is locked"):
        terraform(runner).outputs()


def test_outputs_of_the_recorded_cluster(runner: FakeRunner) -> None:
    runner.on("terraform output", stdout=json.dumps(document("outputs.json")))

    outputs = terraform(runner).outputs()

    assert isinstance(outputs, Outputs)
    assert outputs.entry_point == outputs.machines["coreos-0"] == "10.215.249.10"
    assert outputs.ssh_user == "core"
    assert outputs.known_hosts.count("ssh-ed25519") == len(outputs.machines) == 3
    assert outputs.sites == {"blog": "genkisugimoto.com", "jpblog": "jp.genkisugimoto.com"}
    assert outputs.name_server == "10.215.249.4"


@pytest.mark.parametrize("answer", ["", "Failed to load the plan", "[]"])
def test_plan_that_is_junk(runner: FakeRunner, answer: str) -> None:
    runner.on("terraform show", stdout=answer)

    with pytest.raises(AnswerNotUnderstood, match="terraform show"):
        terraform(runner).plan("platform.plan")


# -- command lines ---------------------------------------------------------------------------------------------------


def test_every_command_runs_in_the_folder_with_the_given_environment(runner: FakeRunner, tmp_path: Path) -> None:
    runner.on("terraform")
    driver = terraform(runner, tmp_path)

    driver.init()
    driver.apply()
    driver.destroy()

    assert [call.cwd for call in runner.details] == [tmp_path] * 3
    assert [call.env for call in runner.details] == [{"PATH": "/bin"}] * 3


def test_init_asks_no_question(runner: FakeRunner) -> None:
    terraform(runner.on("terraform")).init()

    assert runner.calls == ["terraform init -input=false -no-color"]


def test_apply_asks_no_question(runner: FakeRunner) -> None:
    terraform(runner.on("terraform")).apply()

    (call,) = runner.details
    assert call.argv[:2] == ("terraform", "apply")
    assert set(call.argv[2:]) == {"-input=false", "-no-color", "-auto-approve", "-var-file=../../terraform.tfvars"}


def test_destroy_needs_no_force_and_no_refresh(runner: FakeRunner) -> None:
    terraform(runner.on("terraform")).destroy()

    (call,) = runner.details
    assert call.argv[:2] == ("terraform", "destroy")
    assert set(call.argv[2:]) == {
        "-input=false",
        "-no-color",
        "-auto-approve",
        "-refresh=false",
        "-var-file=../../terraform.tfvars",
    }


def test_destroy_that_fails_is_told(runner: FakeRunner) -> None:
    runner.on("terraform destroy", status=1, stderr="Error: container is in use")

    with pytest.raises(CommandFailed, match="container is in use"):
        terraform(runner).destroy()


def test_module_without_variables_is_given_none(runner: FakeRunner) -> None:
    Terraform(runner.on("terraform"), Path("/nowhere"), {}).destroy()

    assert "-var-file" not in runner.calls[0]


def test_show_and_output_ask_for_json(runner: FakeRunner) -> None:
    runner.on("terraform", stdout="{}")
    driver = terraform(runner)

    driver.plan("platform.plan")
    driver.raw_outputs()

    assert [set(call.argv) for call in runner.details] == [
        {"terraform", "show", "-json", "-no-color", "platform.plan"},
        {"terraform", "output", "-json", "-no-color"},
    ]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, empty."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    return scratch


@pytest.fixture(autouse=True)
def every_folder_is_a_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "target_data", lambda folder: target_data(LOCAL))


def planned(runner: FakeRunner) -> Path:
    """Where the last plan was stored; there it is shown from."""
    plan = next(part for call in runner.details for part in call.argv if part.startswith("-out="))
    assert runner.calls[-1].endswith(f" {plan.removeprefix('-out=')}")
    return Path(plan.removeprefix("-out="))


def test_second_plan_that_fails_leaves_no_file(runner: FakeRunner, tmp_path: Path, scratch: Path) -> None:
    runner.on("terraform plan", status=1, stderr="Error: no credentials")

    with pytest.raises(CommandFailed, match="no credentials"):
        terraform(runner, tmp_path).second_plan()

    assert list(scratch.iterdir()) == []


def test_second_plan_that_cannot_be_read_leaves_no_file(runner: FakeRunner, tmp_path: Path, scratch: Path) -> None:
    runner.on("terraform show", stdout="junk")
    runner.on("terraform plan", does=lambda: (next(scratch.iterdir()) / "again.plan").touch())

    with pytest.raises(AnswerNotUnderstood):
        terraform(runner, tmp_path).second_plan()

    assert list(scratch.iterdir()) == []


def test_second_plan_refreshes_and_locks_nothing(runner: FakeRunner, tmp_path: Path) -> None:
    runner.on("terraform show", stdout='{"resource_changes": []}').on("terraform plan")

    assert terraform(runner, tmp_path).second_plan() == Plan([], [], [], [])

    assert "-lock=false" in runner.calls[0] and "-refresh" not in runner.calls[0]
    assert "-var-file=../../terraform.tfvars" in runner.calls[0]


def test_second_plan_is_stored_outside_of_the_folder_and_leaves_no_file(
    runner: FakeRunner, tmp_path: Path, scratch: Path
) -> None:
    folder = tmp_path / "infra"
    folder.mkdir()
    runner.on("terraform show", stdout="{}")
    runner.on("terraform plan", does=lambda: (next(scratch.iterdir()) / "again.plan").touch())

    terraform(runner, folder).second_plan()

    assert planned(runner).is_relative_to(scratch)
    assert list(folder.iterdir()) == list(scratch.iterdir()) == []


def test_second_plans_at_once_do_not_meet(runner: FakeRunner, tmp_path: Path) -> None:
    plans: list[Path] = []

    def another() -> None:
        if not plans:
            plans.append(Path())
            inner = FakeRunner().on("terraform show", stdout="{}").on("terraform plan")
            terraform(inner, tmp_path).second_plan()
            plans[0] = planned(inner)

    terraform(runner.on("terraform show", stdout="{}").on("terraform plan", does=another), tmp_path).second_plan()

    assert planned(runner) != plans[0]


# -- the state -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["", "\n", "no state", "[]", "null", "{}", '{"serial": null}', '{"serial": "x"}'])
def test_serial_that_cannot_be_read(runner: FakeRunner, answer: str) -> None:
    runner.on("terraform state pull", stdout=answer)

    with pytest.raises(AnswerNotUnderstood, match="answer of terraform state pull not understood: no serial"):
        terraform(runner).serial()


def test_serial_when_terraform_fails(runner: FakeRunner) -> None:
    runner.on("terraform state pull", status=1, stderr="Error: backend is out of reach")

    with pytest.raises(CommandFailed, match="out of reach"):
        terraform(runner).serial()


def test_serial_of_the_state(runner: FakeRunner) -> None:
    runner.on("terraform state pull", stdout='{"version": 4, "serial": 17, "lineage": "x"}')

    assert terraform(runner).serial() == 17
    assert runner.calls == ["terraform state pull"]


def test_serial_may_be_asked_for_in_a_run_that_changes_nothing(runner: FakeRunner) -> None:
    runner.on("terraform state pull", stdout='{"serial": 0}')

    assert Terraform(runner, Path("/nowhere"), {}, read_only=True).serial() == 0


@pytest.mark.parametrize("file", ["terraform.tfstate", ".terraform/terraform.tfstate"])
def test_state_is_known_by_its_file_or_its_backends(tmp_path: Path, file: str) -> None:
    driver = terraform(FakeRunner(), tmp_path)
    (tmp_path / ".terraform/providers").mkdir(parents=True)
    assert not driver.has_state()

    (tmp_path / file).touch()

    assert driver.has_state()


def test_folder_that_is_gone_has_no_state(tmp_path: Path) -> None:
    assert not terraform(FakeRunner(), tmp_path / "gone").has_state()


@pytest.mark.parametrize("change", ["apply", "destroy"])
def test_read_only_terraform_changes_nothing(tmp_path: Path, change: str) -> None:
    runner = FakeRunner()

    with pytest.raises(ReadOnly, match=f"terraform {change} .* is refused"):
        getattr(Terraform(runner, tmp_path, {}, read_only=True), change)()
    assert runner.calls == []


# -- what a plan would change, line by line ---------------------------------------------------------------------------


def change(actions: list[str], before: Any, after: Any, **more: Any) -> dict[str, Any]:
    item = {"actions": actions, "before": before, "after": after, "after_unknown": {}, **more}
    return {"address": "docker_container.machine", "mode": "managed", "type": "docker_container", "change": item}


def changed(*resources: dict[str, Any], **outputs: dict[str, Any]) -> list[str]:
    return read({"resource_changes": list(resources), "output_changes": outputs}).changed


def test_a_plan_in_which_only_an_output_changes_changes_something() -> None:
    plan = json.loads((Path(__file__).parent.parent / "cases/plan-output-only.json").read_text())

    assert read(plan).changed == ['output entrypoint-ip: "10.0.0.1" -> "10.0.0.2"']


def test_each_attribute_that_would_change_has_a_line() -> None:
    before = {"memory": 340, "name": "coreos-0", "labels": [{"label": "a"}], "env": None, "gone": 1}
    after = {"memory": 512, "name": "coreos-0", "labels": [{"label": "b"}], "env": ["A=b"]}

    assert changed(change(["update"], before, after)) == [
        "docker_container.machine: memory 340 -> 512",
        'docker_container.machine: labels [{"label": "a"}] -> [{"label": "b"}]',
        'docker_container.machine: env null -> ["A=b"]',
        "docker_container.machine: gone 1 -> none",
    ]


def test_what_is_known_only_afterwards_and_what_is_secret_is_said_to_be_that() -> None:
    plan = change(
        ["delete", "create"],
        {"id": "4711", "key": "old secret", "image": "a"},
        {"key": "new secret", "image": "b"},
        after_unknown={"id": True},
        before_sensitive={"key": True},
        after_sensitive={"key": True},
    )

    assert changed(plan) == [
        'docker_container.machine, replaced: id "4711" -> (known after apply)',
        "docker_container.machine, replaced: key (sensitive) -> (sensitive)",
        'docker_container.machine, replaced: image "a" -> "b"',
    ]


def test_what_would_be_made_or_destroyed_is_not_told_attribute_by_attribute() -> None:
    assert changed(change(["create"], None, {"a": 1}), change(["delete"], {"a": 1}, None)) == [
        "docker_container.machine: would be made",
        "docker_container.machine: would be destroyed",
    ]


def test_outputs_that_come_go_and_stay() -> None:
    same = {"actions": ["no-op"], "before": 1, "after": 1, "after_unknown": False}
    new = {"actions": ["create"], "before": None, "after": {"coreos-0": "x"}, "after_unknown": False}
    later = {"actions": ["update"], "before": "a", "after": None, "after_unknown": True}
    secret = {"actions": ["update"], "before": "a", "after": "b", "before_sensitive": True, "after_sensitive": True}

    assert changed(same=same, new=new, later=later, secret=secret) == [
        'output new: coreos-0 none -> "x"',
        'output later: "a" -> (known after apply)',
        "output secret: (sensitive) -> (sensitive)",
    ]


def test_long_values_are_cut() -> None:
    (line,) = changed(change(["update"], {"upload": "a" * 5000}, {"upload": "b" * 5000}))

    assert len(line) < 300


FRAMED = """╷
│ Error: local-exec provisioner error
│
│   with terraform_data.looked_at["10.0.0.12"],
│   on main.tf line 9, in resource "terraform_data" "looked_at":
│    9:   provisioner "local-exec" {
│
│ Error running command './look debian 10.0.0.12': exit status 1. Output:
│ 10.0.0.12: host-1: it has a filter of its own (nft list
│ ruleset)
│
╵
"""


THERE = """
Error: remote-exec provisioner error

  with terraform_data.prepared["coreos-1"],
  on machines.tf line 159, in resource "terraform_data" "prepared":
 159:   provisioner "remote-exec" {

error executing "/tmp/platform-1651160319.sh": Process
exited with status 1
"""
QUIET = """terraform_data.prepared["coreos-1"] (remote-exec): Connecting to remote host via SSH...
terraform_data.prepared["coreos-1"] (remote-exec):   Host: 10.0.0.12
terraform_data.prepared["coreos-1"] (remote-exec):   Checking Host Key: true
terraform_data.prepared["coreos-1"] (remote-exec): Connected!
terraform_data.prepared["coreos-1"] (remote-exec):
"""
PRINTED = """terraform_data.prepared["coreos-1"] (remote-exec): Connected!
terraform_data.prepared["coreos-2"] (remote-exec): Connected!
terraform_data.prepared["coreos-1"] (remote-exec): host-1: its packages cannot be installed: no mirror
terraform_data.prepared["coreos-2"] (remote-exec): host-2: its disk is full
"""
ENDED = (
    'terraform_data.prepared["coreos-1"]: error executing "/tmp/platform-1651160319.sh": Process exited with status 1'
)
BROKEN = "wait:\nremote command exited without exit status or exit signal"


@pytest.mark.parametrize(
    ("stdout", "stderr", "reason"),
    [
        (PRINTED, THERE, "host-1: its packages cannot be installed: no mirror"),
        ("", THERE, ENDED),
        (QUIET, THERE, ENDED),
        (
            PRINTED,
            THERE.replace("Process\nexited with status 1", BROKEN),
            ENDED.replace("Process exited with status 1", " ".join(BROKEN.split())),
        ),
    ],
    ids=["it printed why", "Terraform printed nothing", "it printed nothing", "the connection broke"],
)
def test_why_is_what_a_program_printed_on_another_machine(stdout: str, stderr: str, reason: str) -> None:
    """The first that failed: more may follow."""
    assert why(stdout, stderr + THERE.replace("coreos-1", "coreos-2") + FRAMED) == reason


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        (FRAMED, "10.0.0.12: host-1: it has a filter of its own (nft list ruleset)"),
        ("╷\n│ Error: Invalid index\n│ \n│ There is none.\n╵\n", "Invalid index: There is none."),
        ("Pool overlaps\nwith another", "Pool overlaps with another"),
        ("", ""),
    ],
)
def test_why_is_what_a_program_printed_or_the_first_error_on_one_line(stderr: str, reason: str) -> None:
    assert why("", stderr) == reason


def test_outputs_are_read_through_a_persons_wrapper(runner: FakeRunner) -> None:
    text = json.dumps(document("outputs.json"))
    runner.on("terraform output", stdout=f"[command]/opt/terraform output -json\n{text}\n::debug::ended with 0.\n")

    assert terraform(runner).outputs() == Outputs.read(values_of_outputs())
