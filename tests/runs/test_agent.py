"""Keys made for a run, and the ssh-agent that holds the operator's: nothing is left of it, and nobody else is ended."""

from __future__ import annotations

import io
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from harness.errors import EnvironmentFailed, Misconfigured
from harness.runs.agent import Agent, Keys, LentAgent
from harness.runs.run import Run
from harness.seams.process import Processes
from harness.seams.wait import Waiter
from tests.fakes import FakeClock, FakeRunner
from tests.places import PERSONS_AGENT, RUN_ID, a_run, checkout, program

needs_agent = pytest.mark.skipif(not shutil.which("ssh-agent"), reason="no ssh-agent on this machine")
KEY = Keys.generate("operator@x")
pytestmark = pytest.mark.usefixtures("temporary")


@pytest.fixture
def run(tmp_path: Path, runner: FakeRunner) -> Iterator[Run]:
    with a_run(checkout(tmp_path / "root"), runner.on("ssh-add -q -")) as run:
        yield run


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """Somebody's process, whose environment carries the run id all the same."""
    with subprocess.Popen(["sleep", "60"], env={**os.environ, "PLATFORM_RUN": RUN_ID}) as process:
        yield process
        process.kill()


def fake_agent(tmp_path: Path, listens_after: float = 0) -> Path:
    """Puts another ssh-agent on PATH: its socket is there at once, and takes connections later. Gives the file that it
    writes its number and its run into."""
    said = tmp_path / "said"
    program(
        tmp_path,
        "ssh-agent",
        f"#!{sys.executable}\nimport os, pathlib, socket, sys, time\n"
        f"pathlib.Path({str(said)!r}).write_text(f'{{os.getpid()}} {{os.environ[\"PLATFORM_RUN\"]}}')\n"
        "agent = socket.socket(socket.AF_UNIX)\nagent.bind(sys.argv[3])\n"
        f"time.sleep({listens_after})\nagent.listen()\ntime.sleep(30)\n",
    )
    return said


def number_in(said: Path) -> int:
    return int(said.read_text().split()[0])


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


# -- an agent that does not start ----------------------------------------------------------------------------------


def test_an_agent_that_does_not_listen_is_the_environments_failure_and_leaves_nothing(
    run: Run, tmp_path: Path, temporary: Path
) -> None:
    program(tmp_path, "ssh-agent", "#!/bin/sh\nexit 1\n")
    run.waiter = Waiter(run.recorder, FakeClock())

    with pytest.raises(EnvironmentFailed, match="the ssh-agent of the run: the ssh-agent listens: not within 20 s"):
        Agent.start(run, KEY.private, os.environ)
    assert list(temporary.iterdir()) == []


def test_an_agent_that_refuses_the_key_is_the_environments_failure_and_leaves_nothing(
    run: Run, runner: FakeRunner, tmp_path: Path, temporary: Path
) -> None:
    said = fake_agent(tmp_path)
    runner.on("ssh-add", status=1, stderr="agent refused operation")

    with pytest.raises(EnvironmentFailed, match=r"the ssh-agent of the run: .*agent refused operation"):
        Agent.start(run, KEY.private, os.environ)
    assert not runs(number_in(said))
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Misconfigured("ssh-add is not installed")])
def test_what_ends_a_start_comes_out_and_leaves_nothing(
    run: Run, runner: FakeRunner, tmp_path: Path, temporary: Path, error: BaseException
) -> None:
    said = fake_agent(tmp_path)
    runner.on("ssh-add", raises=error)

    with pytest.raises(type(error)):
        Agent.start(run, KEY.private, os.environ)
    assert not runs(number_in(said))
    assert list(temporary.iterdir()) == []


def test_a_machine_without_ssh_agent_is_told_so(run: Run, temporary: Path) -> None:
    with pytest.raises(Misconfigured, match="ssh-agent is not installed: install openssh-client"):
        Agent.start(run, KEY.private, {"PATH": "/nowhere"})
    assert list(temporary.iterdir()) == []


def test_an_agent_whose_socket_is_there_but_does_not_listen_yet_is_waited_for(run: Run, tmp_path: Path) -> None:
    said = fake_agent(tmp_path, listens_after=0.3)
    agent = Agent.start(run, KEY.private, os.environ)

    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(agent.socket))
    agent.end()
    assert said.read_text().split()[1] == RUN_ID, "the leftovers finds it by that"


# -- the end of one ------------------------------------------------------------------------------------------------


def test_a_number_that_is_another_process_by_now_is_left_alone(
    sleeper: subprocess.Popen[bytes], temporary: Path
) -> None:
    folder = temporary / f"platform-{RUN_ID}-abc"
    folder.mkdir()
    Agent(RUN_ID, sleeper.pid, folder / "agent").end()

    assert sleeper.poll() is None
    assert not folder.exists()


def test_a_number_that_nobody_has_any_more_is_no_failure(sleeper: subprocess.Popen[bytes], temporary: Path) -> None:
    sleeper.kill()
    sleeper.wait()
    folder = temporary / f"platform-{RUN_ID}-abc"
    folder.mkdir()
    Agent(RUN_ID, sleeper.pid, folder / "agent").end()

    assert not folder.exists()


def test_an_agent_of_the_persons_own_is_left_alone(run: Run, tmp_path: Path, temporary: Path) -> None:
    fake_agent(tmp_path)
    socket_of_person = temporary / "persons" / "agent"
    socket_of_person.parent.mkdir()
    with subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(socket_of_person)], env={**os.environ, "PLATFORM_RUN": "x"}
    ) as process:
        run.waiter.until("it is there", socket_of_person.exists, bool, within=5)
        agent = Agent.of(RUN_ID, {"SSH_AUTH_SOCK": str(socket_of_person), "SSH_AGENT_PID": str(process.pid)})
        assert agent is not None
        agent.end()

        assert process.poll() is None
        assert socket_of_person.exists()
        process.kill()


def test_another_process_ends_an_agent_that_it_knows_by_its_variables(run: Run, tmp_path: Path) -> None:
    fake_agent(tmp_path)
    started = Agent.start(run, KEY.private, os.environ)
    known = Agent.of(RUN_ID, started.variables)
    assert known is not None
    known.end()

    assert started._process is not None
    assert started._process.wait(5) == -signal.SIGKILL
    assert not started.socket.parent.exists()


def test_an_end_can_be_had_again(run: Run, tmp_path: Path) -> None:
    fake_agent(tmp_path)
    agent = Agent.start(run, KEY.private, os.environ)
    agent.end()
    agent.end()

    assert not runs(agent.pid)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"SSH_AUTH_SOCK": PERSONS_AGENT},
        {"SSH_AGENT_PID": "7"},
        {"SSH_AUTH_SOCK": PERSONS_AGENT, "SSH_AGENT_PID": "x"},
        {"SSH_AUTH_SOCK": "", "SSH_AGENT_PID": ""},
    ],
)
def test_variables_that_tell_of_no_agent(variables: dict[str, str]) -> None:
    assert Agent.of(RUN_ID, variables) is None


# -- a real one ----------------------------------------------------------------------------------------------------


@needs_agent
def test_an_agent_holds_the_key_and_is_forgotten_at_its_end(run: Run) -> None:
    run.process = Processes(run.recorder)
    agent = Agent.start(run, KEY.private, os.environ)
    held = subprocess.run(["ssh-add", "-L"], env={**os.environ, **agent.variables}, capture_output=True, text=True)
    agent.end()

    assert held.stdout.split()[:2] == KEY.public.split()[:2]
    assert not runs(agent.pid)
    assert not agent.socket.parent.exists()


def _started_and_ended(run: Run, known_by: str) -> bool:
    """Whether a user without rights, whom an ssh-agent lets not read its environment, ends one all the same."""
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    signal.alarm(10)
    agent = Agent.start(run, KEY.private, os.environ)
    known = agent if known_by == "process" else Agent.of(run.run_id, agent.variables)
    assert known is not None and agent._process is not None
    known.end()
    return agent._process.wait(5) == -signal.SIGKILL and not agent.socket.parent.exists()


@needs_agent
@pytest.mark.parametrize("known_by", ["process", "variables"])
def test_a_user_without_rights_ends_their_agent(run: Run, temporary: Path, known_by: str) -> None:
    temporary.chmod(0o777)
    fork = multiprocessing.get_context("fork")
    ended = fork.Value("i", 0)

    def work() -> None:
        ended.value = int(_started_and_ended(run, known_by))

    process = fork.Process(target=work)
    process.start()
    process.join()

    assert ended.value == 1


# -- keys ----------------------------------------------------------------------------------------------------------


def test_a_key_is_one_that_paramiko_takes() -> None:
    key = paramiko.Ed25519Key.from_private_key(io.StringIO(KEY.private))

    assert KEY.public == f"ssh-ed25519 {key.get_base64()} operator@x\n"


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="no ssh-keygen on this machine")
def test_a_key_is_one_that_openssh_takes(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_text(KEY.private)

    answer = subprocess.run(["ssh-keygen", "-y", "-f", file], capture_output=True, text=True, check=True).stdout
    assert answer.split()[:2] == KEY.public.split()[:2]


def test_no_two_keys_are_the_same() -> None:
    assert len({Keys.generate("x").private for _ in range(10)}) == 10


# -- the person's own ----------------------------------------------------------------------------------------------


@needs_agent
def test_a_persons_agent_gets_the_runs_key_beside_its_own_and_gives_it_back(run: Run, temporary: Path) -> None:
    theirs, ours = temporary / "theirs", temporary / "ours"
    for key in (theirs, ours):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key, "-C", key.name], check=True)
    (temporary / "ours.pub").unlink()
    run.process = Processes(run.recorder)
    persons = Agent.start(run, theirs.read_text(), os.environ)
    subprocess.run(["ssh-add", "-q", "-D"], env=os.environ | persons.variables, check=True)
    subprocess.run(["ssh-add", "-q", theirs], env=os.environ | persons.variables, check=True)

    def held() -> list[str]:
        argv = ["ssh-add", "-l"]
        listed = subprocess.run(argv, env=os.environ | persons.variables, capture_output=True, text=True, check=True)
        return sorted(line.split()[2] for line in listed.stdout.splitlines())

    lent = LentAgent.lend(run, ours, str(persons.socket))
    lent.end()  # of a command on a cluster that is kept
    assert held() == ["ours", "theirs"]
    lent.take_back()
    lent.take_back()
    assert held() == ["theirs"]
    persons.end()


def test_a_persons_agent_that_is_gone_is_told(run: Run, temporary: Path) -> None:
    key = temporary / "key"
    key.write_text(KEY.private)
    key.chmod(0o600)
    run.process = Processes(run.recorder)

    with pytest.raises(EnvironmentFailed, match=r"your ssh-agent does not take the run's key: .*ssh-add"):
        LentAgent.lend(run, key, "/gone")
