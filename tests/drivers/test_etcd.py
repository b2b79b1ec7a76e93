"""etcd's driver: which members are healthy, and what a discovery URL says."""

from __future__ import annotations

import http.server
import json
import re
import socket
import socketserver
import threading
from typing import Any

import pytest
import requests

from harness.drivers.etcd import Etcd, Registration
from harness.errors import AnswerNotUnderstood, EnvironmentFailed
from harness.seams.http import SiteUnreachable
from harness.seams.ssh import MachineUnreachable
from harness.seams.wait import NotAnswering
from tests.transcripts.machines import NAMES, RecordedMachines

NOT_FOUND = "404 page not found\n"
REFUSED = "\n"  # curl says why on stderr


@pytest.fixture
def machines() -> RecordedMachines:
    return RecordedMachines()


def has_members(machines: RecordedMachines, *names: str, on: str | None = None) -> RecordedMachines:
    """Lets one machine, or every machine, list these members."""
    for machine in [on] if on else NAMES:
        health, members = parts(machines, machine)
        members["members"] = [{**members["members"][0], "name": name} for name in names]
        machines.on("2379/health", f"{health}\n{json.dumps(members)}", machine)
    return machines


def parts(machines: RecordedMachines, machine: str) -> tuple[str, Any]:
    health, _, members = machines.recorded["etcd"][machine].partition("\n")
    return health, json.loads(members)


# -- members ---------------------------------------------------------------------------------------------------------


def test_members_are_those_that_the_way_in_lists(machines: RecordedMachines) -> None:
    has_members(machines, "coreos-0", on="coreos-0")
    assert Etcd(machines).members() == {"coreos-0"}
    machines.lose("coreos-0")
    assert Etcd(machines).members() == set(NAMES)


@pytest.mark.parametrize(
    "answer",
    [
        REFUSED,
        "",
        "junk\njunk",
        "[]\n[]",
        '{"health":"false"}\n{"members":[{"name":"coreos-0"}]}',
        '{"health":true}\n{"members":[{"name":"coreos-0"}]}',
        '{"health":"true"}\n' + NOT_FOUND,  # no v2 keys: fleet could not use it
        '{"health":"true"}\n{"members":["coreos-1"]}',
        '{"health":"true"}\n{"members":null}',
    ],
)
def test_cluster_that_is_not_healthy_has_no_members(machines: RecordedMachines, answer: str) -> None:
    assert Etcd(machines.on("2379/health", answer)).members() == set()


def test_curl_that_fails_is_an_answer(machines: RecordedMachines) -> None:
    assert Etcd(machines.fails("2379/health", 7, "curl: (7) Failed to connect")).members() == set()


def test_machine_that_cannot_be_asked_is_told(machines: RecordedMachines) -> None:
    machines.on("2379/health", MachineUnreachable("machine coreos-0 does not answer over SSH"), "coreos-0")

    with pytest.raises(MachineUnreachable, match="coreos-0"):
        Etcd(machines).members()


@pytest.mark.parametrize("leads", NAMES)
def test_the_leader_is_who_says_so(machines: RecordedMachines, leads: str) -> None:
    machines.on("stats/self", '{"name":"x","state":"StateFollower"}')
    machines.on("stats/self", '{"name":"x","state":"StateLeader"}', leads)

    assert Etcd(machines).leader() == leads


def test_without_a_leader_there_is_none(machines: RecordedMachines) -> None:
    with pytest.raises(NotAnswering, match="no leader"):
        Etcd(machines.on("stats/self", "")).leader()


def test_what_more_than_half_agree_on_is_asked_for_as_such(machines: RecordedMachines) -> None:
    machines.on("/v2/keys/platform?recursive=true", '{"node":{"key":"/platform","value":"what one knew"}}')
    machines.on("/v2/keys/platform?recursive=true&quorum=true", '{"node":{"key":"/platform","value":"agreed"}}')

    assert (Etcd(machines).get("/platform", quorum=True) or {})["value"] == "agreed"
    assert (Etcd(machines).get("/platform") or {})["value"] == "what one knew"


def test_keys_are_set_in_their_order_by_one_command(
    machines: RecordedMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, str]] = []
    run = lambda name, command, *, data: sent.append((command, data.decode()))  # noqa: E731
    monkeypatch.setattr(machines, "run", run)
    Etcd(machines).put_all({"/b": "it's", "/a": "2"})

    ((command, script),) = sent
    assert command == "sh" and script.startswith("set -e\n")
    assert re.findall(r"keys(/\S+) .*value=(.+?) >", script) == [("/b", """it'"'"'s'"""), ("/a", "2")]


# -- the discovery URL -----------------------------------------------------------------------------------------------

URL = "http://192.0.2.1:2379/v2/keys/discovery/f00"
SIZE = {"action": "get", "node": {"key": "/discovery/f00/_config/size", "value": "3"}}
EMPTY = {"action": "get", "node": {"key": "/discovery/f00", "dir": True}}
MEMBERS = {
    "action": "get",
    "node": {
        "key": "/discovery/f00",
        "dir": True,
        "nodes": [
            {"key": "/discovery/f00/7b0db9728922a49", "value": "coreos-0=http://10.215.249.10:2380"},
            {"key": "/discovery/f00/47b6422f61d5c6ce", "value": "coreos-2=http://10.215.249.12:2380"},
        ],
    },
}
NO_KEY = {"errorCode": 100, "message": "Key not found", "cause": "/discovery/f00", "index": 7}


class Service(requests.Session):
    """A discovery service that gives these answers: path behind the URL -> document, text or error."""

    def __init__(self, answers: dict[str, object]) -> None:
        super().__init__()
        self.answers = answers

    def get(self, url: str | bytes, **kwargs: Any) -> requests.Response:
        answer = self.answers[str(url).removeprefix(URL)]
        if isinstance(answer, BaseException):
            raise answer
        response = requests.Response()
        response.status_code = 200
        response._content = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        return response


def registration(size: object, members: object) -> Registration:
    return Registration.read(URL, Service({"/_config/size": size, "": members}))


def test_new_discovery_url() -> None:
    assert registration(SIZE, EMPTY) == Registration(3, [])


def test_discovery_url_where_members_met() -> None:
    assert registration(SIZE, MEMBERS) == Registration(
        3, ["coreos-0=http://10.215.249.10:2380", "coreos-2=http://10.215.249.12:2380"]
    )


def test_discovery_url_of_a_service_on_a_machine_is_asked_there(machines: RecordedMachines) -> None:
    machines.on(URL, json.dumps(EMPTY)).on(f"{URL}/_config/size", json.dumps(SIZE))

    assert Registration.on(machines, URL) == Registration(3, [])


@pytest.mark.parametrize("size", ["", "three", "-1", "2.5", "3 "])
def test_discovery_url_with_a_size_that_is_no_number(size: str) -> None:
    with pytest.raises(AnswerNotUnderstood, match="the size is no number"):
        registration({"node": {"value": size}}, EMPTY)


def test_discovery_url_without_a_size() -> None:
    with pytest.raises(AnswerNotUnderstood, match="no node"):
        registration(NO_KEY, EMPTY)


def test_discovery_url_that_is_not_known() -> None:
    with pytest.raises(AnswerNotUnderstood, match="no node"):
        registration(SIZE, NO_KEY)


@pytest.mark.parametrize("answer", ["", "<html>"])
def test_discovery_url_that_answers_no_json(answer: str) -> None:
    with pytest.raises(AnswerNotUnderstood, match="no node"):
        registration(answer, EMPTY)


@pytest.mark.parametrize("answer", ["[]", "null", "3"])
def test_discovery_url_that_answers_other_json(answer: str) -> None:
    with pytest.raises(AnswerNotUnderstood, match="no node"):
        registration(answer, EMPTY)


@pytest.mark.parametrize("node", [None, "3", []])
def test_discovery_url_whose_node_is_junk(node: object) -> None:
    with pytest.raises(AnswerNotUnderstood):
        registration({"node": node}, EMPTY)


def test_discovery_service_that_does_not_answer_is_no_fault_of_the_platform() -> None:
    with pytest.raises(EnvironmentFailed, match="the discovery service does not answer: http://x cannot be reached"):
        registration(SiteUnreachable("http://x cannot be reached"), EMPTY)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_discovery_service_where_nobody_listens_is_no_fault_of_the_platform(host: str) -> None:
    with pytest.raises(EnvironmentFailed, match="onnection refused"):
        Registration.at(f"http://{host}:9/v2/keys/token", None)


def test_discovery_service_that_nobody_knows_is_no_fault_of_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(EnvironmentFailed, match=r"discovery\.example cannot be looked up: Name or service"):
        Registration.at("http://discovery.example/token", None)


def test_discovery_service_that_answers_at_an_ipv6_address(monkeypatch: pytest.MonkeyPatch) -> None:
    class Keys(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(SIZE if self.path.endswith("size") else EMPTY).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None: ...

    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6

        def server_bind(self) -> None:  # without the look-up of a name that HTTPServer makes
            socketserver.TCPServer.server_bind(self)

    with Server(("::1", 0), Keys) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
        thread.start()
        try:
            assert Registration.at(f"http://[::1]:{server.server_address[1]}/token", None) == Registration(3, [])
        finally:
            server.shutdown()
            thread.join()


# -- keys ------------------------------------------------------------------------------------------------------------


def test_a_key_is_asked_of_the_way_in_with_all_below_it(machines: RecordedMachines) -> None:
    machines.on("v2/keys", '{"action": "get", "node": {"key": "/a", "dir": true}}')

    assert Etcd(machines).get("/a") == {"key": "/a", "dir": True}
    ((name, command),) = machines.asked
    assert name == machines.entry_point and command.endswith(" 'http://127.0.0.1:2379/v2/keys/a?recursive=true'")


def test_another_member_is_asked_while_the_way_in_has_no_etcd_that_runs(machines: RecordedMachines) -> None:
    machines.on("v2/keys", '{"action": "get", "node": {"key": "/a", "dir": true}}')
    machines.fails("v2/keys", 7, "Failed to connect", "coreos-0").fails("v2/keys", 7, "Failed to connect", "coreos-1")

    assert Etcd(machines).get("/a") == {"key": "/a", "dir": True}
    assert [name for name, _ in machines.asked] == ["coreos-0", "coreos-1", "coreos-2"]
    machines.fails("v2/keys", 7, "Failed to connect")
    with pytest.raises(NotAnswering, match="ended with 7"):
        Etcd(machines).get("/a")


def test_another_member_is_asked_while_the_way_in_is_silent(machines: RecordedMachines) -> None:
    machines.on("v2/keys", '{"action": "get", "node": {"key": "/a", "dir": true}}')
    machines.on("v2/keys", MachineUnreachable.of("coreos-0", "machine", TimeoutError("silent")), "coreos-0")

    assert Etcd(machines).get("/a") == {"key": "/a", "dir": True}
    with pytest.raises(MachineUnreachable):  # it may have written it
        Etcd(machines).put("/a", "b")
    machines.on("v2/keys", MachineUnreachable.of("coreos-0", "machine", TimeoutError("silent")))
    with pytest.raises(MachineUnreachable):
        Etcd(machines).get("/a")


def test_an_etcd_that_is_silent_is_no_other_ones_to_answer_for(machines: RecordedMachines) -> None:
    machines.fails("v2/keys", 28, "Operation timed out")

    with pytest.raises(NotAnswering, match="ended with 28"):
        Etcd(machines).get("/a")
    assert [name for name, _ in machines.asked] == ["coreos-0"]


def test_a_key_that_is_not_there(machines: RecordedMachines) -> None:
    machines.on("v2/keys", '{"errorCode":100,"message":"Key not found","cause":"/a","index":8}')

    assert Etcd(machines).get("/a") is None


@pytest.mark.parametrize("answer", ["", "\n", "<html>", "[]", "null", "7", '{"node": 7}', "{}", "[" * 9999])
def test_an_answer_that_is_no_key(machines: RecordedMachines, answer: str) -> None:
    with pytest.raises(AnswerNotUnderstood, match="etcd's key /a"):
        Etcd(machines.on("v2/keys", answer)).get("/a")


def test_an_etcd_without_a_leader_may_answer_later(machines: RecordedMachines) -> None:
    machines.on("v2/keys", '{"errorCode":300,"message":"Raft Internal Error","cause":"no leader","index":8}')

    with pytest.raises(NotAnswering, match="no leader"):
        Etcd(machines).get("/a")


@pytest.mark.parametrize(("ttl", "end"), [(None, "value=it'\"'\"'s'"), (60, "-d ttl=60")])
def test_a_key_is_put(machines: RecordedMachines, ttl: int | None, end: str) -> None:
    Etcd(machines.on("v2/keys", "{}")).put("/a", "it's", ttl)

    ((_, command),) = machines.asked
    assert " --fail -X PUT http://127.0.0.1:2379/v2/keys/a --data-urlencode 'value=it" in command
    assert command.endswith(end)


def test_a_key_is_put_and_removed_only_where_its_value_is_the_one_before(machines: RecordedMachines) -> None:
    machines.on("v2/keys", "{}")
    Etcd(machines).put("/a", "new one", instead_of="old one")
    Etcd(machines).delete("/a", instead_of="old one")
    Etcd(machines).delete("/a")

    put, removed, removed_anyhow = (command for _, command in machines.asked)
    assert " --fail -X PUT " in put
    assert put.endswith(" --data-urlencode 'prevValue=old one' --data-urlencode 'value=new one'")
    assert " --fail -X DELETE " in removed and removed.endswith("'http://127.0.0.1:2379/v2/keys/a?prevValue=old%20one'")
    # one that is gone is gone
    assert "--fail" not in removed_anyhow and removed_anyhow.endswith("/v2/keys/a")


def test_a_majority_is_asked_where_that_matters(machines: RecordedMachines) -> None:
    machines.on("v2/keys", '{"node":{"value":"x"}}')
    Etcd(machines).get("/a")
    Etcd(machines).get("/a", quorum=True)

    one, majority = (command for _, command in machines.asked)
    assert "quorum" not in one and "?recursive=true&quorum=true'" in majority
