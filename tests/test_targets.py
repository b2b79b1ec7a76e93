"""The guard of the contract: every target takes the same variables and gives the same outputs (infra/contract.json).

`faults_of_targets` takes a checkout, so that copies which are broken on purpose show that it notices.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jmespath
import pytest

from harness.drivers.terraform import target_data
from harness.model import tfvars
from harness.runs.acceptance import target_takes
from harness.runs.workplace import targets
from harness.setup.limits import ENTRY_POINT_MEMORY, ENTRY_POINTS, LIMITS, MEMORY, PROCESSOR
from harness.setup.toolchain import Toolchain
from tests.transcripts.machines import document

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r'^(variable|output)\s+"([^"]+)"\s*\{', re.MULTILINE)
# what must not be read as HCL: strings, heredocs are none in variables and outputs, comments
PASSED_OVER = re.compile(r'"(?:[^"\\]|\\.)*"|#[^\n]*|//[^\n]*|/\*.*?\*/', re.DOTALL)
OPENS, CLOSES = "({[", ")}]"
TAKEN = (MEMORY, ENTRY_POINTS, ENTRY_POINT_MEMORY, PROCESSOR, *LIMITS)
TAKES = dict.fromkeys(TAKEN, 7)
WAYS = ("off", "on")
# where a plan notices it, and makes the machine again
GONE = "gone"
# what only knows the machines of one run
SSH = "-F ssh_config"
FREEZES = ("freeze", "thaw")
CUTS = ("cut", "deafen", "thin")
SWITCH = ["virsh", "destroy", "{run_id}-{machine}"]


# -- the guard -------------------------------------------------------------------------------------------------------


def faults_of_targets(root: Path) -> list[str]:
    """One line for each way in which a target of this checkout breaks the contract."""
    contract = json.loads((root / "infra/contract.json").read_text())
    found = [folder for folder in (root / "infra").iterdir() if (folder / "target.json").is_file()]
    faults = [] if found else ["there is no target"]
    for folder in sorted(found):
        text = "\n".join(file.read_text() for file in sorted(folder.glob("*.tf")))
        own = json.loads((folder / "target.json").read_text()).get("own_variables", [])
        faults += [f"{folder.name}: {fault}" for fault in _faults(text, contract, own)]
    return faults


def faults_of_example(root: Path) -> list[str]:
    """Names that terraform.example.tfvars sets, and not every target has."""
    contract = json.loads((root / "infra/contract.json").read_text())
    return sorted(set(tfvars.read((root / "terraform.example.tfvars").read_text())) - set(contract["variables"]))


def faults_of_takes(data: Mapping[str, Any]) -> list[str]:
    """What a machine takes of the harness's own machine: nothing, or as whole numbers all that the limits are about."""
    takes = data.get("takes", {})
    if takes == {}:
        return []
    if not isinstance(takes, dict):
        return [f"takes is {takes}, no object"]
    faults = [f"takes has no {name}" for name in TAKEN if name not in takes]
    faults += [f"takes {name}, which nobody reads" for name in takes if name not in TAKEN]
    return faults + [
        f"takes {name} of {value}: give a whole number"
        for name, value in takes.items()
        if type(value) is not int or value < 1
    ]


def faults_of_power(data: Mapping[str, Any]) -> list[str]:
    """How machines are switched: not at all, or in each way by a command that names one machine of one run."""
    power = data.get("power", {})
    if not power:
        return []
    faults = [f"power has no {way}" for way in WAYS if way not in power]
    faults += [f"power {way}, which nobody switches" for way in power if way not in (*WAYS, GONE, *FREEZES)]
    for way, command in power.items():
        try:
            words = [part.format(run_id="<run>", machine="<machine>") for part in command]
        except (KeyError, IndexError, ValueError, AttributeError) as wrong:
            faults.append(f"power {way}: {wrong!r}")
            continue
        if not any(_names_machine(word) for word in words):
            faults.append(f"power {way}: `{' '.join(words)}` names no machine of a run")
    return faults


def _names_machine(word: str) -> bool:
    """By the run's id, or by what is in the run's own ssh_config."""
    return "<machine>" in word and ("<run>" in word or SSH in word)


def faults_of_network(data: Mapping[str, Any]) -> list[str]:
    """How machines are cut off from others: not at all, or each way by a command; each but that which only tries names
    one machine of one run, and each that cuts the others."""
    network = data.get("network", {})
    if not network:
        return []
    faults = [f"network has no {way}" for way in (*CUTS, "heal", "try") if way not in network]
    for way, command in network.items():
        words = " ".join(part.format(run_id="<run>", machine="<machine>", others="<others>") for part in command)
        needed = ["<run>"] * (SSH not in words) + ["<machine>"] * (way != "try") + ["<others>"] * (way in CUTS)
        faults += [f"network {way}: `{words}` names no {word[1:-1]}" for word in needed if word not in words]
    return faults


def _faults(text: str, contract: dict[str, Any], own: list[str]) -> Iterator[str]:
    variables, outputs = blocks(text, "variable"), blocks(text, "output")
    types, sensitive = contract["variables"] | contract["optional"], contract["sensitive"]
    yield from (f"own variable {name} is the contract's" for name in own if name in types)
    yield from (f"own variable {name} is not declared" for name in own if name not in variables)
    yield from _differ("variable", set(variables) - set(contract["optional"]), {*contract["variables"], *own})
    yield from _differ("output", set(outputs), set(contract["outputs"]))
    for name, body in variables.items():
        if name in types and _squeezed(body.get("type", "none")) != _squeezed(types[name]):
            yield f"variable {name} is of type {body.get('type', 'none')}, not {types[name]}"
        if (body.get("sensitive") == "true") != (name in sensitive):
            yield f"variable {name} is {'not ' if name in sensitive else ''}marked sensitive"
    for kind, declared in (("variable", variables), ("output", outputs)):
        for name, body in declared.items():
            if len(body.get("description", "").strip('" ')) < 10:
                yield f"{kind} {name} has no description"


def _differ(kind: str, seen: set[str], wanted: set[str]) -> Iterator[str]:
    yield from (f"{kind} {name} is missing" for name in sorted(wanted - seen))
    yield from (f"{kind} {name} is not in the contract" for name in sorted(seen - wanted))


def _squeezed(text: str) -> str:
    return re.sub(r"\s+|,(?=\s*[})\]])", "", text.replace(",", ", "))


def blocks(text: str, kind: str) -> dict[str, dict[str, str]]:
    """The blocks `kind "NAME" { ... }` of Terraform text: name -> attribute -> value as it is written."""
    bare = PASSED_OVER.sub(lambda found: found[0] if found[0][0] == '"' else "", text)
    return {found[2]: _attributes(bare, found.end()) for found in BLOCK.finditer(bare) if found[1] == kind}


def _attributes(text: str, start: int) -> dict[str, str]:
    """The attributes of the block whose body begins at `start`; nested blocks are passed over."""
    depth, line = 0, ""
    found: dict[str, str] = {}
    position = start
    while position < len(text):
        string = PASSED_OVER.match(text, position)
        word = string[0] if string else text[position]
        position += len(word)
        depth += (word in OPENS) - (word in CLOSES)
        if depth < 0:
            break
        if word == "\n" and depth == 0:
            name, equals, value = line.partition("=")
            found |= {name.strip(): value.strip()} if equals and name.strip().isidentifier() else {}
            line = ""
        else:
            line += word
    return found


# -- the checkout ----------------------------------------------------------------------------------------------------


def test_every_target_keeps_the_contract() -> None:
    assert faults_of_targets(ROOT) == []


def test_the_default_target_is_one() -> None:
    assert "local" in targets(ROOT)


def test_the_example_sets_variables_of_the_contract_only() -> None:
    assert faults_of_example(ROOT) == []


def test_the_example_leaves_the_discovery_url_to_the_runbook() -> None:
    assert tfvars.read((ROOT / "terraform.example.tfvars").read_text())["discovery_url"] == ""


@pytest.mark.parametrize("target", targets(ROOT))
def test_target_tells_the_harness_what_its_outputs_do_not(target: str) -> None:
    data = json.loads((ROOT / "infra" / target / "target.json").read_text())

    for query in ("machines_made", "destroyed", "openings"):
        jmespath.compile(data[query])
    if "console" in data:
        console = [part.format(run_id="run", machine="coreos-0", command="true") for part in data["console"]]
        assert "true" in console[-1] and any("run" in part and "coreos-0" in part for part in console)
    assert set(data.get("set_up", ())) <= set(Toolchain.TASKS)
    assert faults_of_takes(data) == []
    assert faults_of_power(data) == []
    assert faults_of_network(data) == []


def test_machines_of_this_machine_take_something_of_it() -> None:
    """A target that takes nothing is a cloud's: nobody looks whether there is room, or whether Docker answers."""
    assert {"memory_mib", "inotify_instances"} <= set(TAKEN) == target_takes(ROOT, "local").keys()


@pytest.mark.parametrize(
    ("takes", "fault"),
    [
        ({"memory_mib": 96}, "takes has no inotify_instances"),
        ({"inotify_instances": 7}, "takes has no memory_mib"),
        ({**TAKES, "disk": 1}, "takes disk, which nobody reads"),
        ({**TAKES, "memory_mib": "96"}, "takes memory_mib of 96: give a whole number"),
        ({**TAKES, "memory_mib": 96.5}, "takes memory_mib of 96.5: give a whole number"),
        ({**TAKES, "memory_mib": True}, "takes memory_mib of True: give a whole number"),
        ({**TAKES, "inotify_instances": 0}, "takes inotify_instances of 0: give a whole number"),
        ({**TAKES, "inotify_instances": None}, "takes inotify_instances of None: give a whole number"),
        (["memory_mib"], "takes is ['memory_mib'], no object"),
    ],
)
def test_guard_notices_what_is_taken(takes: object, fault: str) -> None:
    assert fault in faults_of_takes({"takes": takes})


@pytest.mark.parametrize("data", [{}, {"takes": {}}, {"takes": TAKES}])
def test_guard_passes_what_is_taken(data: dict[str, Any]) -> None:
    assert faults_of_takes(data) == []


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"on": None}, "power has no on"),
        ({"reset": SWITCH}, "power reset, which nobody switches"),
        ({"off": ["poweroff"]}, "power off: `poweroff` names no machine of a run"),
        ({"off": ["docker", "kill", "{machine}"]}, "power off: `docker kill <machine>` names no machine of a run"),
        ({"on": ["docker", "start", "{run_id}-{name}"]}, "power on: KeyError('name')"),
        ({"on": [7]}, "power on: "),
    ],
)
def test_guard_notices_how_machines_are_switched(changed: dict[str, Any], fault: str) -> None:
    power = {way: command for way, command in {**dict.fromkeys(WAYS, SWITCH), **changed}.items() if command}

    assert any(line.startswith(fault) for line in faults_of_power({"power": power}))


@pytest.mark.parametrize("data", [{}, {"power": {}}, {"power": dict.fromkeys(WAYS, SWITCH)}])
def test_guard_passes_how_machines_are_switched(data: dict[str, Any]) -> None:
    assert faults_of_power(data) == []


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"heal": None}, "network has no heal"),
        ({"cut": ["block", "{run_id}-{machine}"]}, "network cut: `block <run>-<machine>` names no others"),
        ({"heal": ["unblock", "{run_id}"]}, "network heal: `unblock <run>` names no machine"),
        ({"try": ["true"]}, "network try: `true` names no run"),
    ],
)
def test_guard_notices_how_machines_are_cut_off(changed: dict[str, Any], fault: str) -> None:
    block = ["block", "{run_id}-{machine}", "{others}"]
    network = {**dict.fromkeys((*CUTS, "heal", "try"), block), **changed}

    assert faults_of_network({"network": {way: it for way, it in network.items() if it}}) == [fault]
    assert faults_of_network({"network": dict.fromkeys((*CUTS, "heal", "try"), block)}) == faults_of_network({}) == []


def test_machines_of_this_machine_can_be_switched() -> None:
    """A target that cannot leaves the scenarios of recovery out."""
    assert target_data(ROOT / "infra/local")["power"].keys() == {*WAYS, GONE, *FREEZES}


def test_hosts_are_switched_by_whoever_has_a_switch_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOST_POWER", raising=False)
    assert "power" not in target_data(ROOT / "infra/hosts")

    monkeypatch.setenv("HOST_POWER", "/opt/power")
    assert target_data(ROOT / "infra/hosts")["power"].keys() == {*WAYS, *FREEZES}


def test_the_recorded_outputs_are_those_of_the_contract() -> None:
    contract = json.loads((ROOT / "infra/contract.json").read_text())

    assert sorted(document("outputs.json")) == sorted(contract["outputs"])


# -- copies that are broken on purpose -------------------------------------------------------------------------------


@pytest.fixture
def change(tmp_path: Path) -> Callable[[str, str, str], Path]:
    """Copies the targets, replaces a text of one file in the copy, and gives the copy's root."""
    shutil.copytree(ROOT / "infra/local", tmp_path / "infra/local")
    for name in ("infra/contract.json", "terraform.example.tfvars"):
        shutil.copy(ROOT / name, tmp_path / name)

    def replace(name: str, old: str, new: str) -> Path:
        file = tmp_path / name
        text = file.read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {name}"
        file.write_text(text.replace(old, new))
        return tmp_path

    return replace


VARIABLES, OUTPUTS, TARGET = "infra/local/variables.tf", "infra/local/outputs.tf", "infra/local/target.json"
MACHINES = 'variable "machines" {\n  type        = number\n'
KEYS = "map(object({ private = string, public = string }))"


def block_of(file: str, name: str) -> str:
    """A variable as it is written."""
    return re.findall(rf'(?ms)^variable "{name}" {{.*?^}}$', (ROOT / file).read_text())[0]


def unmarked(block: str, remark: str) -> str:
    """The block without its mark, or with the mark as a remark."""
    assert block.count("  sensitive   = true\n") == 1
    return block.replace("  sensitive   = true\n", f"  {remark}sensitive = true\n" if remark else "")


HOST_KEYS, NAME_KEY = block_of(VARIABLES, "ssh_host_keys"), block_of(VARIABLES, "name_key")


@pytest.mark.parametrize(
    ("file", "old", "new", "fault"),
    [
        (VARIABLES, 'variable "jpblog_domain"', 'variable "jp_domain"', "variable jpblog_domain is missing"),
        (VARIABLES, 'variable "jpblog_domain"', 'variable "jp_domain"', "variable jp_domain is not in the contract"),
        (
            VARIABLES,
            'variable "run_id" {',
            'variable "region" {\n  type = string\n  description = "Where the machines are."\n}\nvariable "run_id" {',
            "variable region is not in the contract",
        ),
        (VARIABLES, MACHINES, MACHINES.replace("number", "string"), "variable machines is of type string, not number"),
        (VARIABLES, MACHINES, 'variable "machines" {\n', "variable machines is of type none, not number"),
        (VARIABLES, KEYS, "map(string)", f"variable ssh_host_keys is of type map(string), not {KEYS}"),
        (VARIABLES, HOST_KEYS, unmarked(HOST_KEYS, ""), "variable ssh_host_keys is not marked sensitive"),
        (VARIABLES, HOST_KEYS, unmarked(HOST_KEYS, "# "), "variable ssh_host_keys is not marked sensitive"),
        (VARIABLES, NAME_KEY, unmarked(NAME_KEY, ""), "variable name_key is not marked sensitive"),
        (VARIABLES, 'variable "name_server"', 'variable "names"', "variable names is not in the contract"),
        (VARIABLES, 'variable "image_registry"', 'variable "registry"', "variable image_registry is missing"),
        (TARGET, '{\n  "about"', '{\n  "own_variables": ["size"],\n  "about"', "own variable size is not declared"),
        (
            TARGET,
            '{\n  "about"',
            '{\n  "own_variables": ["name_key"],\n  "about"',
            "own variable name_key is the contract's",
        ),
        (OUTPUTS, 'output "name-server"', 'output "names"', "output name-server is missing"),
        (VARIABLES, MACHINES, f"{MACHINES}  sensitive = true\n", "variable machines is marked sensitive"),
        (VARIABLES, '  description = "Host name of the blog."\n', "", "variable blog_domain has no description"),
        (VARIABLES, '"Host name of the blog."', '""', "variable blog_domain has no description"),
        (OUTPUTS, 'output "ssh-user"', 'output "user"', "output ssh-user is missing"),
        (OUTPUTS, 'output "ssh-user"', 'output "user"', "output user is not in the contract"),
        (OUTPUTS, 'output "ssh-user" {', 'output "x" {}\noutput "ssh-user" {', "output x is not in the contract"),
        (OUTPUTS, '  description = "Who logs in on a machine."\n', "", "output ssh-user has no description"),
        (OUTPUTS, 'output "ssh-user" {', '/*\noutput "ssh-user" {\n}\n*/\nlocals {', "output ssh-user is missing"),
    ],
)
def test_guard_notices(change: Callable[[str, str, str], Path], file: str, old: str, new: str, fault: str) -> None:
    assert f"local: {fault}" in faults_of_targets(change(file, old, new))


def test_guard_passes_a_type_over_several_lines(change: Callable[[str, str, str], Path]) -> None:
    root = change(VARIABLES, KEYS, "map(object({\n    private = string,\n    public  = string,\n  }))")

    assert faults_of_targets(root) == []


def test_guard_passes_text_that_only_looks_like_hcl(change: Callable[[str, str, str], Path]) -> None:
    root = change(OUTPUTS, "Who logs in on a machine.", r"Who { logs \" in = on # a machine.")

    assert faults_of_targets(root) == []


def test_guard_passes_a_variable_of_the_targets_own(change: Callable[[str, str, str], Path]) -> None:
    root = change(TARGET, '{\n  "about"', '{\n  "own_variables": ["size"],\n  "about"')
    with (root / VARIABLES).open("a") as file:
        file.write('variable "size" {\n  type = string\n  description = "Of each machine."\n}\n')

    assert faults_of_targets(root) == []


def test_guard_passes_a_target_that_does_without_what_is_optional(change: Callable[[str, str, str], Path]) -> None:
    assert faults_of_targets(change(VARIABLES, NAME_KEY, "")) == []


def test_guard_reads_every_target(change: Callable[[str, str, str], Path]) -> None:
    root = change(OUTPUTS, "Who logs in", "Who may log in")
    shutil.copytree(root / "infra/local", root / "infra/elsewhere")
    (root / "infra/elsewhere/outputs.tf").unlink()

    assert "elsewhere: output machines is missing" in faults_of_targets(root)


def test_guard_is_red_when_there_is_no_target(change: Callable[[str, str, str], Path]) -> None:
    root = change(OUTPUTS, "Who logs in", "Who may log in")
    shutil.rmtree(root / "infra/local")

    assert faults_of_targets(root) == ["there is no target"]


def test_guard_notices_what_the_example_sets_beyond_the_contract(change: Callable[[str, str, str], Path]) -> None:
    root = change("terraform.example.tfvars", "machines = 3", 'machines = 3\ntoken = "secret"')

    assert faults_of_example(root) == ["token"]
