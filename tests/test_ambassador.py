"""The ambassador's programs (units/images/ambassador) with a real etcd and a real HAProxy, on loopback: no container.

Apps are small servers of this file, the Docker Engine is one too. `follow` and `register` run as they do in their
container, as a process that gets its constants (etcd's name, the paths that only a container has to itself) from here.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import re
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from ambassador import register, show
from ambassador.etcd import EVENT_INDEX_CLEARED, KEY_NOT_FOUND, Answer, Etcd, EtcdRefused, EtcdSilent
from ambassador.follow import MAINTENANCE, PLACES, Address, Proxy, ProxySilent, Server, follow, instances, servers, told
from ambassador.register import EngineSilent, Registration, Watchdog, kill, published

from harness.seams.patience import patience

IMAGE = Path(__file__).parent.parent / "units/images/ambassador"
ETCD_CONFIGURE = Path(__file__).parent.parent / "container/etcd/configure.sh"
HOST = "127.0.0.1"
DOMAIN = "blog.example"
SERVICE = "blog"
DIRECTORY = f"/services/{SERVICE}"
KEY = f"{DIRECTORY}/coreos-0:blog"


# == what the tests stand on =========================================================================================


def eventually(holds: Callable[[], object], within: float, every: float = 0.02) -> None:
    """Returns as soon as it holds; fails when it does not within so many seconds (times PATIENCE)."""
    ends = time.monotonic() + within * patience()
    while not (last := holds()):
        assert time.monotonic() < ends, f"not within {within:g} s, at last {last!r}"
        time.sleep(every)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


def program(name: str) -> str:
    """A real program, from set-up. Its absence is no reason to skip: then nothing would be proven."""
    found = os.environ.get(f"PLATFORM_{name.upper()}") or shutil.which(name)
    assert found, f"no program {name} on PATH: set-up provides it, run `make test`"
    return found


class Program:
    """A process with all that it starts, in a group of its own; what it says is kept in a file."""

    def __init__(self, argv: list[str], log: Path, **environment: str) -> None:
        self._log = log
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("ETCD_", "PATIENCE", "SERVICE"))
        }
        with log.open("ab") as said:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env={**kept, **environment},
                start_new_session=True,
            )

    def said(self) -> str:
        return self._log.read_text()

    def ended(self, within: float = 5) -> int:
        """Waits for its end; its status."""
        return self.process.wait(within * patience())

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(5)


class RealEtcd:
    """An etcd on loopback that can be killed, and started again with what it knows."""

    def __init__(self, folder: Path) -> None:
        self.port, self._peer = free_ports(2)
        self.address = f"{HOST}:{self.port}"
        self.initial_cluster = f"default=http://{HOST}:{self._peer}"
        self.client = Etcd(self.address)
        self._folder = folder
        self.start()

    def start(self) -> None:
        client, peer = f"http://{self.address}", f"http://{HOST}:{self._peer}"
        argv = [program("etcd"), f"--data-dir={self._folder}/etcd", "--enable-v2"]
        argv += [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
        argv += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
        argv += [f"--initial-cluster={self.initial_cluster}", "--heartbeat-interval=20", "--election-timeout=200"]
        self._program = Program(argv, self._folder / "etcd.log")
        eventually(self._takes_writes, within=8)

    def _takes_writes(self) -> bool:
        assert self._program.process.poll() is None, self._program.said()[-500:]
        with contextlib.suppress(EtcdSilent, EtcdRefused):
            self.client.put("/started", "yes", 1)
            return True
        return False

    def kill(self) -> None:
        self._program.kill()

    def empty(self) -> None:
        for key in [node["key"] for node in self.client.get("/").node.get("nodes", ())]:
            self.raw("DELETE", key, recursive="true")

    def raw(self, method: str, key: str, **values: str) -> dict[str, Any]:
        """What the client of the ambassador cannot do."""
        return self.client._ask(method, key, values).node

    def node(self, key: str = KEY) -> dict[str, Any] | None:
        try:
            return self.client.get(key).node
        except EtcdRefused as refused:
            assert refused.code == KEY_NOT_FOUND
            return None

    def instance(self, port: int, name: str = "coreos-0:blog", ttl: int = 60) -> str:
        """Registers an instance that answers at a port of loopback; its key."""
        key = f"{DIRECTORY}/{name}"
        self.client.put(key, json.dumps({"host": HOST, "port": port}), ttl)
        return key


@pytest.fixture(scope="module")
def shared_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEtcd]:
    started = RealEtcd(tmp_path_factory.mktemp("etcd"))
    yield started
    started.kill()


@pytest.fixture
def etcd(shared_etcd: RealEtcd) -> Iterator[RealEtcd]:
    yield shared_etcd
    shared_etcd.empty()


class _Quiet(socketserver.BaseServer):
    """A server in a thread; a client that goes away is no error of it."""

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@contextlib.contextmanager
def in_thread(server: _Quiet) -> Iterator[None]:
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.005))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class AppHandler(BaseHTTPRequestHandler):
    """Answers to its app's host name and says whose it is, and 503 to any other, as container/web/configure.sh has it.
    /slow sends half of the answer, and the other half when the app is told to."""

    protocol_version = "HTTP/1.1"
    server: App

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        app = self.server
        own = self.headers["Host"] == app.domain
        body = app.name.encode() if own else b""
        if own and self.command != "HEAD":
            app.served.append(self.path)
        self.send_response(app.status if own else 503)
        if own and app.service is not None:
            self.send_header("X-Service", app.service)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.path == "/slow":
            self.wfile.write(body[:1])
            app.half_sent.set()
            app.go_on.wait(10)
            body = body[1:]
        self.wfile.write(body)

    do_GET = do_HEAD = do_POST = answer

    def log_message(self, *_: object) -> None:
        pass


class App(_Quiet, ThreadingHTTPServer):
    """An instance of a site."""

    request_queue_size = 128

    def __init__(self, name: str = "app", domain: str = DOMAIN) -> None:
        super().__init__((HOST, 0), AppHandler)
        self.name = name
        self.domain = domain
        self.service: str | None = SERVICE
        self.status = 200
        self.served: list[str] = []
        self.half_sent, self.go_on = threading.Event(), threading.Event()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def address(self) -> Address:
        return HOST, self.port


@contextlib.contextmanager
def apps(*names: str, domain: str = DOMAIN) -> Iterator[list[App]]:
    with contextlib.ExitStack() as running:
        made = [App(name, domain) for name in names]
        for app in made:
            running.enter_context(in_thread(app))
        yield made
        for app in made:
            app.go_on.set()


# An app of its own process, which can be killed with requests under way. Arguments: its port.
KILLABLE = """
import sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # what it answers leaves at once or not at all, as with the sites' nginx

    def do_GET(self):
        time.sleep(0.01)
        self.send_response(200)
        self.send_header("X-Service", "blog")
        self.send_header("Content-Length", "8")
        self.end_headers()
        self.wfile.write(b"killable"[:0 if self.command == "HEAD" else 8])

    do_HEAD = do_GET

    def log_message(self, *_):
        pass

ThreadingHTTPServer.request_queue_size = 128
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def asked(port: int, path: str = "/", method: str = "GET", host: str = DOMAIN) -> tuple[int, str]:
    """One request, on a connection of its own: status and body. A body that is not whole is an error."""
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request(method, path, headers={"Host": host})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def answers(port: int, count: int) -> Counter[tuple[int, str]]:
    return Counter(asked(port) for _ in range(count))


REPLACED = {
    "port": "bind :",
    "socket": "/run/haproxy.sock",
    "checks": "inter 500ms downinter 100ms",
}
# Ten times as often as in a container, so that no test waits long for one
CHECKS = "inter 50ms downinter 10ms"


def configuration(name: str, folder: Path, **replaced: str) -> Path:
    """A configuration of the image, with other text where it names what only a container has to itself: its well-known
    ports, and /run. (Variables, as HAProxy has them, would have to be set in each container, for the tests' sake.)"""
    text = (IMAGE / "files/etc/haproxy" / name).read_text()
    for old, new in replaced.items():
        place = REPLACED[old]
        assert text.count(place) == 1, f"{name} has not one {place}"
        if old == "port":
            place += text.partition(place)[2].split()[0]
            new = f"bind {HOST}:{new}"
        text = text.replace(place, new)
    written = folder / name
    written.write_text(text)
    return written


class Ambassador:
    """A HAProxy with service.cfg, and the runtime socket through which it gets its servers."""

    def __init__(self, folder: Path, checks: str = CHECKS) -> None:
        (self.port,) = free_ports(1)
        self.socket = str(folder / "haproxy.sock")
        self.configuration = configuration(
            "service.cfg", folder, port=str(self.port), socket=self.socket, checks=checks
        )

    def up(self) -> bool:
        with contextlib.suppress(ProxySilent):
            return bool(told("show info", self.socket))
        return False

    def states(self) -> dict[str, str]:
        """Address -> state of each server that is one."""
        return {server.address: server.state for server in servers(self.socket).values() if server.state != MAINTENANCE}

    def state(self, app: App) -> str:
        return self.states().get(f"{HOST}:{app.port}", "none")


# seconds in which a server that comes is checked
CHECKED = {CHECKS: 0.2, REPLACED["checks"]: 0.8}


class Haproxy(Ambassador):
    """An ambassador whose servers a test sets itself; they are down until their first check has passed."""

    def __init__(self, folder: Path, checks: str = CHECKS) -> None:
        super().__init__(folder, checks)
        ambassador = self

        class CheckedProxy(Proxy):
            def serve(self, wanted: Iterable[Address]) -> list[str]:
                lines = super().serve(wanted)
                ends = time.monotonic() + CHECKED[checks] * patience()
                while set(ambassador.states().values()) - {"UP"} and time.monotonic() < ends:
                    time.sleep(0.02)
                return lines

        self.proxy = CheckedProxy(self.socket)
        self.program = Program(
            [program("haproxy"), "-db", "-f", str(self.configuration)],
            folder / "haproxy.log",
            SERVICE=SERVICE,
            DOMAIN=DOMAIN,
            PATIENCE="1",
        )
        eventually(self.up, within=5)


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[Haproxy]:
    started = Haproxy(tmp_path)
    yield started
    started.program.kill()


@pytest.fixture
def unhurried(tmp_path: Path) -> Iterator[Haproxy]:
    """With checks as seldom as in a container: servers go that it does not know of yet."""
    started = Haproxy(tmp_path, REPLACED["checks"])
    yield started
    started.program.kill()


# == etcd's keys =====================================================================================================


@contextlib.contextmanager
def saying(answer: bytes) -> Iterator[str]:
    """A server that says this to whatever it is asked; its address."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            self.request.sendall(answer)

    class Server(_Quiet, socketserver.TCPServer):
        pass

    with Server((HOST, 0), Handler) as server, in_thread(server):
        yield f"{HOST}:{server.server_address[1]}"


def http_answer(body: str, *headers: str, status: str = "200 OK") -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


INDEX = "X-Etcd-Index: 5"
NO_ANSWERS = {
    "nothing": b"",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "an empty body": http_answer("", INDEX),
    "text": http_answer("<html>", INDEX),
    "half a document": http_answer('{"action":"get","node":{"key"', INDEX),
    "less than it promised": http_answer('{"node":{"key":"/"}}', INDEX)[:-3],
    "a list": http_answer("[]", INDEX),
    "text in JSON": http_answer('"errorCode"', INDEX),
    "a number": http_answer("5", INDEX),
    "null": http_answer("null", INDEX),
    "no node": http_answer("{}", INDEX),
    "no node, of a proxy without members": http_answer('{"message":"zero endpoints"}', status="503 Unavailable"),
    "no index": http_answer('{"node":{"key":"/","dir":true}}'),
    "an index that is no number": http_answer('{"node":{"key":"/","dir":true}}', "X-Etcd-Index: five"),
    "no v2 API": http_answer("404 page not found\n", status="404 Not Found"),
    "not UTF-8": b"HTTP/1.0 200 OK\r\n\r\n\xff\xfe\xfd",
}


@pytest.mark.parametrize("answer", NO_ANSWERS.values(), ids=list(NO_ANSWERS))
@pytest.mark.parametrize("ask", ["get", "wait", "put", "refresh", "delete"])
def test_what_is_no_answer_of_the_v2_api_is_silence(answer: bytes, ask: str) -> None:
    with saying(answer) as address, pytest.raises(EtcdSilent) as raised:
        _ask(Etcd(address), ask)

    assert 0 < len(str(raised.value)) < 300


def _ask(client: Etcd, ask: str) -> None:
    arguments: dict[str, tuple[Any, ...]] = {"wait": (5, 1.0), "put": ("v", 5), "refresh": ("v", 5), "delete": ("v",)}
    getattr(client, ask)("/services/blog", *arguments.get(ask, ()))


@pytest.mark.parametrize("ask", ["get", "wait", "put", "refresh", "delete"])
def test_a_closed_port_is_silence(ask: str) -> None:
    (port,) = free_ports(1)
    with pytest.raises(EtcdSilent, match="Connection refused"):
        _ask(Etcd(f"{HOST}:{port}"), ask)


def test_a_name_that_nobody_knows_is_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(EtcdSilent, match="Name or service not known"):
        Etcd("etcd:2379").get("/services/blog")


@pytest.mark.parametrize("ask", ["get", "put", "refresh", "delete"])
def test_who_takes_a_request_and_says_nothing_is_silent(monkeypatch: pytest.MonkeyPatch, ask: str) -> None:
    monkeypatch.setattr(Etcd._ask, "__defaults__", (0.1,))  # instead of etcd.LIMIT
    with socket.create_server((HOST, 0)) as silent, pytest.raises(EtcdSilent, match=r"^no answer within 0.1 s$"):
        _ask(Etcd(f"{HOST}:{silent.getsockname()[1]}"), ask)


def test_an_etcd_without_its_v2_api_is_silence(tmp_path: Path) -> None:
    client, peer = (f"http://{HOST}:{port}" for port in free_ports(2))
    argv = [program("etcd"), f"--data-dir={tmp_path}/etcd", f"--listen-client-urls={client}"]
    argv += [f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}"]
    argv += [f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}"]
    started = Program(argv, tmp_path / "log")
    try:
        port = int(client.rpartition(":")[2])
        eventually(lambda: listens(port), within=8)
        with pytest.raises(EtcdSilent):
            Etcd(f"{HOST}:{port}").get("/services/blog")
    finally:
        started.kill()


def test_a_key_that_is_missing_is_refused_with_etcds_index(etcd: RealEtcd) -> None:
    etcd.client.put("/other", "x", 60)
    index = etcd.client.get("/other").index
    with pytest.raises(EtcdRefused, match="Key not found") as raised:
        etcd.client.get(KEY)

    assert (raised.value.code, raised.value.index) == (KEY_NOT_FOUND, index)


def test_a_key_is_put_with_its_time_to_live_and_found_in_its_directory(etcd: RealEtcd) -> None:
    value = '{"host": "192.0.2.1", "port": 1} &=%é'
    etcd.client.put(KEY, value, 60)

    (node,) = etcd.client.get(DIRECTORY).node["nodes"]
    assert (node["key"], node["value"]) == (KEY, value)
    assert 58 <= node["ttl"] <= 60


@pytest.mark.parametrize("now", [None, "another's"])
def test_a_refresh_is_refused_for_a_key_that_is_gone_or_changed(etcd: RealEtcd, now: str | None) -> None:
    if now:
        etcd.client.put(KEY, now, 5)

    assert etcd.client.refresh(KEY, "ours", 60) is False
    node = etcd.node()
    assert (node and (node["value"], node["ttl"] <= 5)) == (now and (now, True))


def test_a_refresh_of_what_is_a_directory_is_refused_aloud(etcd: RealEtcd) -> None:
    etcd.client.put(f"{KEY}/below", "x", 60)
    with pytest.raises(EtcdRefused, match="Not a file"):
        etcd.client.refresh(KEY, "ours", 60)


def test_a_refresh_prolongs_a_key_and_wakes_nobody(etcd: RealEtcd) -> None:
    etcd.client.put(KEY, "ours", 5)
    index = etcd.client.get(DIRECTORY).index
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(etcd.client.wait, DIRECTORY, index, 5.0)
        for _ in range(3):
            time.sleep(0.05)
            assert etcd.client.refresh(KEY, "ours", 60) is True
        time.sleep(0.1)
        assert not waiting.done()
        etcd.client.put(f"{DIRECTORY}/another", "x", 60)
        waiting.result(1)

    node = etcd.node()
    assert node is not None and node["value"] == "ours" and node["ttl"] > 55


def test_a_refresh_that_went_before_wakes_nobody_either(etcd: RealEtcd) -> None:
    etcd.client.put(KEY, "ours", 5)
    index = etcd.client.get(DIRECTORY).index
    etcd.client.refresh(KEY, "ours", 60)
    began = time.monotonic()
    etcd.client.wait(DIRECTORY, index, 0.2)

    assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize("now", [None, "another's", "ours"])
def test_only_the_own_value_is_deleted(etcd: RealEtcd, now: str | None) -> None:
    if now:
        etcd.client.put(KEY, now, 60)
    etcd.client.delete(KEY, "ours")

    node = etcd.node()
    assert (node and node["value"]) == (now if now != "ours" else None)


CHANGES: dict[str, Callable[[RealEtcd], object]] = {
    "a new key": lambda etcd: etcd.client.put(f"{DIRECTORY}/new", "x", 60),
    "another value": lambda etcd: etcd.client.put(KEY, "new", 60),
    "a key that is deleted": lambda etcd: etcd.client.delete(KEY, "old"),
    "the directory that is deleted": lambda etcd: etcd.raw("DELETE", DIRECTORY, recursive="true"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
@pytest.mark.parametrize("before", [True, False], ids=["before the wait", "during it"])
def test_a_wait_ends_with_a_change(etcd: RealEtcd, change: Callable[[RealEtcd], object], before: bool) -> None:
    etcd.client.put(KEY, "old", 60)
    index = etcd.client.get(DIRECTORY).index
    began = time.monotonic()
    if before:
        change(etcd)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(etcd.client.wait, DIRECTORY, index, 5.0)
        if not before:
            time.sleep(0.05)
            assert not waiting.done()
            change(etcd)
        waiting.result(5)

    assert time.monotonic() - began < 4


def test_a_wait_for_a_directory_that_is_not_there_yet_ends_when_it_comes(etcd: RealEtcd) -> None:
    with pytest.raises(EtcdRefused) as raised:
        etcd.client.get(DIRECTORY)
    etcd.client.put(KEY, "first", 60)
    began = time.monotonic()
    etcd.client.wait(DIRECTORY, raised.value.index, 5.0)

    assert time.monotonic() - began < 4


def test_a_wait_without_a_change_ends_at_its_limit(etcd: RealEtcd) -> None:
    etcd.client.put(KEY, "old", 60)
    index = etcd.client.get(DIRECTORY).index
    etcd.client.put("/services/jpblog/another", "x", 60)  # another service's
    began = time.monotonic()
    etcd.client.wait(DIRECTORY, index, 0.2)

    assert 0.2 <= time.monotonic() - began < 4


def test_a_wait_for_what_etcd_no_longer_remembers_ends_at_once(etcd: RealEtcd) -> None:
    etcd.client.put(KEY, "old", 60)
    index = etcd.client.get(DIRECTORY).index
    connection = http.client.HTTPConnection(etcd.address, timeout=5)
    for number in range(1001):  # etcd remembers 1000 events
        connection.request("PUT", f"/v2/keys/other?value={number}")
        connection.getresponse().read()
    connection.close()
    query = {"wait": "true", "recursive": "true", "waitIndex": str(index + 1)}
    with pytest.raises(EtcdRefused) as raised:
        etcd.raw("GET", DIRECTORY, **query)
    assert raised.value.code == EVENT_INDEX_CLEARED

    began = time.monotonic()
    etcd.client.wait(DIRECTORY, index, 5.0)
    assert time.monotonic() - began < 4


def test_a_wait_that_is_refused_otherwise_says_so() -> None:
    answer = http_answer('{"errorCode":300,"message":"Raft Internal Error","index":7}', status="500 Error")
    with saying(answer) as address, pytest.raises(EtcdRefused, match="Raft Internal Error") as raised:
        Etcd(address).wait(DIRECTORY, 5, 1.0)

    assert (raised.value.code, raised.value.index) == (300, 7)


def test_a_wait_is_broken_off_by_the_end_of_etcd(tmp_path: Path) -> None:
    own = RealEtcd(tmp_path)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(own.client.wait, DIRECTORY, 100, 5.0)
        time.sleep(0.1)
        own.kill()
        with pytest.raises(EtcdSilent):
            waiting.result(1)


# == what a directory holds ==========================================================================================


def node(value: object, name: str = "coreos-0:blog") -> dict[str, Any]:
    return {"key": f"{DIRECTORY}/{name}", "value": value, "modifiedIndex": 7, "createdIndex": 7}


def registration(host: object, port: object) -> str:
    return json.dumps({"host": host, "port": port})


MALFORMED = {
    "nothing": "",
    "no JSON": "192.0.2.1:80",
    "half of it": '{"host": "192.0.2.1", "po',
    "more than it": '{"host": "192.0.2.1", "port": 1}}',
    "a list": '["192.0.2.1", 1]',
    "an empty list": "[]",
    "a number": "5",
    "text": '"192.0.2.1:80"',
    "null": "null",
    "true": "true",
    "NaN": "NaN",
    "no host": '{"port": 1}',
    "no port": '{"host": "192.0.2.1"}',
    "other names": '{"Host": "192.0.2.1", "Port": 1}',
    "host null": registration(None, 1),
    "host empty": registration("", 1),
    "host a number": registration(3221225985, 1),
    "host a list": registration(["192.0.2.1"], 1),
    "host a name": registration("localhost", 1),
    "host with a space": registration("192.0.2.1 ", 1),
    "host with a command": registration("192.0.2.1; disable server instances/instance1", 1),
    "host with a newline": registration("192.0.2.1\n", 1),
    "host with a port": registration("192.0.2.1:80", 1),
    "host with a mask": registration("192.0.2.1/32", 1),
    "host IPv6": registration("::1", 1),
    "host IPv4 in IPv6": registration("::ffff:192.0.2.1", 1),
    "host with too few numbers": registration("192.0.2", 1),
    "host with too great a number": registration("192.0.2.256", 1),
    "host with a zero before": registration("192.0.2.01", 1),
    "host in other digits": registration("192.0.2.١", 1),
    "port null": registration("192.0.2.1", None),
    "port 0": registration("192.0.2.1", 0),
    "port negative": registration("192.0.2.1", -80),
    "port too great": registration("192.0.2.1", 65536),
    "port true": registration("192.0.2.1", True),
    "port text": registration("192.0.2.1", "80"),
    "port a fraction": registration("192.0.2.1", 80.0),
    "port NaN": registration("192.0.2.1", float("nan")),
    "port infinite": registration("192.0.2.1", float("inf")),
    "port a list": registration("192.0.2.1", [80]),
    "port of thousands of digits": '{"host": "192.0.2.1", "port": ' + "9" * 5000 + "}",
    "huge": "x" * 1_000_000,
    "huge in JSON": json.dumps("x" * 1_000_000),
    "host huge": registration("1" * 1_000_000, 1),
    "nested deeply": "[" * 100_000,
    "half a character": '{"host": "\\ud800", "port": 1}',
}


@pytest.mark.parametrize("value", MALFORMED.values(), ids=list(MALFORMED))
def test_a_value_that_is_no_registration_is_passed_over_with_one_line(value: str) -> None:
    good = node(registration("192.0.2.9", 49153), "good")
    found, lines = instances({"nodes": [node(value, "bad"), good]})

    assert found == {("192.0.2.9", 49153)}
    assert len(lines) == 1
    assert lines[0].startswith(f"{DIRECTORY}/bad passed over: ")
    assert "\n" not in lines[0]
    assert len(lines[0]) < 1000
    assert lines[0].encode()


ODD_KEYS: dict[str, dict[str, Any]] = {
    "a directory": {"key": f"{DIRECTORY}/bad", "dir": True, "nodes": [node(registration("192.0.2.1", 1), "bad/below")]},
    "an empty directory": {"key": f"{DIRECTORY}/bad", "dir": True},
    "a value that is null": node(None, "bad"),
    "a value that is no text": node({"host": "192.0.2.1", "port": 1}, "bad"),
}


@pytest.mark.parametrize("key", ODD_KEYS.values(), ids=list(ODD_KEYS))
def test_a_key_without_a_value_is_passed_over_with_one_line(key: dict[str, Any]) -> None:
    found, lines = instances({"nodes": [key, node(registration("192.0.2.9", 49153), "good")]})

    assert found == {("192.0.2.9", 49153)}
    assert [line.startswith(f"{DIRECTORY}/bad passed over: ") for line in lines] == [True]


def test_a_key_of_two_lines_is_told_in_one() -> None:
    _, lines = instances({"nodes": [node("junk", "bad\n/services/blog/coreos-0:blog removed")]})

    assert ["\n" in line for line in lines] == [False]


@pytest.mark.parametrize("directory", [{}, {"nodes": None}, {"nodes": []}, node("a file, no directory")])
def test_a_directory_without_keys_holds_no_instances(directory: Mapping[str, Any]) -> None:
    assert instances(directory) == (set(), [])


def test_an_address_that_two_keys_hold_is_one_instance_and_more_fields_do_no_harm() -> None:
    more = json.dumps({"host": "192.0.2.1", "port": 65535, "zone": "b"})
    values = [registration("192.0.2.1", 65535), more, registration("192.0.2.1", 1)]
    found, lines = instances({"nodes": [node(value, str(number)) for number, value in enumerate(values)]})

    assert (found, lines) == ({("192.0.2.1", 65535), ("192.0.2.1", 1)}, [])


# == the proxy =======================================================================================================


def test_a_proxy_that_is_gone_takes_no_command(haproxy: Haproxy) -> None:
    haproxy.program.kill()

    with pytest.raises(ProxySilent, match="Connection refused"):
        haproxy.proxy.serve([(HOST, 1)])
    Path(haproxy.socket).unlink()
    with pytest.raises(ProxySilent, match="No such file"):
        haproxy.proxy.serve([(HOST, 1)])


def test_a_proxy_that_objects_is_told_about(haproxy: Haproxy) -> None:
    with pytest.raises(ProxySilent, match=r"set server instances/instance1 addr nonsense port 1: .+"):
        haproxy.proxy.serve([("nonsense", 1)])


@pytest.mark.parametrize("words", ["", "nothing changed", "IP changed from '1.2.3.4' to '5.6.7.8'", "Done."])
@pytest.mark.parametrize("obeys", [True, False])
def test_what_counts_is_what_a_proxy_did_and_not_its_words(
    monkeypatch: pytest.MonkeyPatch, words: str, obeys: bool
) -> None:
    """2.6 and 3.0 word the same success differently."""
    table = {place: Server("127.0.0.1:1", MAINTENANCE) for place in PLACES}

    def told(command: str, path: str) -> str:
        if obeys and " addr " in command:
            table[PLACES[0]] = table[PLACES[0]]._replace(address=f"{HOST}:80")
        if obeys and " ready" in command:
            table[PLACES[0]] = table[PLACES[0]]._replace(state="DOWN")
        return words

    monkeypatch.setattr("ambassador.follow.told", told)
    monkeypatch.setattr("ambassador.follow.servers", lambda path: table)
    if obeys:
        assert Proxy().serve([(HOST, 80)]) == [f"{HOST}:80 came"]
    else:
        with pytest.raises(ProxySilent, match=f"addr {HOST} port 80: {words}"):
            Proxy().serve([(HOST, 80)])


def test_what_a_proxy_did_not_take_is_tried_again(haproxy: Haproxy, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = haproxy.proxy
    tell = proxy._tell

    def fails(at: str) -> None:
        def told_or_not(place: str, command: str, obeyed: Callable[[Server], bool]) -> None:
            if at in command:
                raise ProxySilent(command)
            tell(place, command, obeyed)

        monkeypatch.setattr(proxy, "_tell", told_or_not)

    with apps("one") as (one,):
        for at, wanted in (("addr", [one.address]), ("ready", [one.address]), ("maint", [])):
            fails(at)
            with pytest.raises(ProxySilent):
                proxy.serve(wanted)
            monkeypatch.undo()
            if at != "addr":
                proxy.serve(wanted)
                assert asked(haproxy.port)[0] == (200 if wanted else 503)


def test_without_any_server_the_proxy_answers_503(haproxy: Haproxy) -> None:
    assert asked(haproxy.port)[0] == 503
    assert haproxy.proxy.serve([]) == []
    assert asked(haproxy.port)[0] == 503


def test_a_server_comes_and_leaves(haproxy: Haproxy) -> None:
    with apps("one") as (one,):
        assert haproxy.proxy.serve([one.address]) == [f"{HOST}:{one.port} came"]
        assert asked(haproxy.port) == (200, "one")
        assert haproxy.proxy.serve([one.address]) == []
        assert haproxy.proxy.serve([]) == [f"{HOST}:{one.port} left"]
        assert asked(haproxy.port)[0] == 503
        assert haproxy.proxy.serve([one.address]) == [f"{HOST}:{one.port} came"]
        assert asked(haproxy.port) == (200, "one")


def test_a_server_changes_its_port(haproxy: Haproxy) -> None:
    with apps("before", "after") as (before, after):
        haproxy.proxy.serve([before.address])
        assert answers(haproxy.port, 4) == {(200, "before"): 4}

        lines = haproxy.proxy.serve([after.address])
        assert lines == [f"{HOST}:{before.port} left", f"{HOST}:{after.port} came"]
        assert answers(haproxy.port, 4) == {(200, "after"): 4}
        # the same place, by now with another address too
        haproxy.proxy.serve([("127.0.0.2", after.port)])
        haproxy.proxy.serve([after.address])
        assert answers(haproxy.port, 4) == {(200, "after"): 4}
        assert list(haproxy.states()) == [f"{HOST}:{after.port}"]


def test_requests_take_turns_between_servers(haproxy: Haproxy) -> None:
    with apps("one", "two") as (one, two):
        haproxy.proxy.serve([one.address, two.address])

        assert answers(haproxy.port, 10) == {(200, "one"): 5, (200, "two"): 5}


def test_a_request_under_way_on_a_server_that_leaves_ends_whole(haproxy: Haproxy) -> None:
    with apps("slow one", "other") as (slow, other), ThreadPoolExecutor() as pool:
        haproxy.proxy.serve([slow.address])
        request = pool.submit(asked, haproxy.port, "/slow")
        assert slow.half_sent.wait(5)
        haproxy.proxy.serve([other.address])
        assert answers(haproxy.port, 4) == {(200, "other"): 4}
        assert not request.done()
        slow.go_on.set()

        assert request.result(5) == (200, "slow one")


def test_the_seventeenth_instance_has_no_place_and_is_told_about(haproxy: Haproxy) -> None:
    with apps(*(str(number) for number in range(17))) as made:
        addresses = sorted(app.address for app in made)
        lines = haproxy.proxy.serve(addresses)

        assert len(PLACES) == 16
        assert lines[:16] == [f"{host}:{port} came" for host, port in addresses[:16]]
        assert lines[16:] == [f"{HOST}:{addresses[16][1]} has no place: 16 instances at most"]
        assert sorted(answers(haproxy.port, 16).values()) == [1] * 16

        # one leaves: now there is a place
        haproxy.proxy.serve(addresses[1:])
        assert f"{HOST}:{addresses[16][1]}" in haproxy.states()
        assert sum(answers(haproxy.port, 16).values()) == 16


def test_a_dead_address_beside_a_good_one_costs_no_request(haproxy: Haproxy) -> None:
    dead = [(HOST, port) for port in free_ports(3)]
    with apps("good") as (good,):
        haproxy.proxy.serve([*dead, good.address])
        began = time.monotonic()

        assert answers(haproxy.port, 40) == {(200, "good"): 40}
        assert time.monotonic() - began < 2 * patience()
        eventually(lambda: Counter(haproxy.states().values()) == {"DOWN": 3, "UP": 1}, within=3)
        assert haproxy.state(good) == "UP"


def test_a_dead_address_beside_a_good_one_costs_no_post(haproxy: Haproxy) -> None:
    dead = [(HOST, port) for port in free_ports(3)]
    with apps("good") as (good,):
        haproxy.proxy.serve([*dead, good.address])

        assert [asked(haproxy.port, method="POST") for _ in range(8)] == [(200, "good")] * 8


def test_another_sites_app_is_never_served_and_is_taken_for_down(haproxy: Haproxy) -> None:
    with apps("right") as (right,), apps("wrong", domain="jp.blog.example") as (wrong,):
        haproxy.proxy.serve([wrong.address, right.address])

        assert answers(haproxy.port, 40) == {(200, "right"): 40}
        eventually(lambda: haproxy.state(wrong) == "DOWN", within=3)
        assert haproxy.state(right) == "UP"
        assert answers(haproxy.port, 10) == {(200, "right"): 10}
        # not either for who asks by that site's name
        assert asked(haproxy.port, host=wrong.domain)[0] == 503
        assert wrong.served == []


@pytest.mark.parametrize("status", [404, 500])
def test_a_site_that_answers_otherwise_is_up_and_its_answer_is_handed_on(haproxy: Haproxy, status: int) -> None:
    """One that nothing was deployed to: what it answers is its own affair, when it says whose it is."""
    with apps("bare") as (bare,):
        bare.status = status
        haproxy.proxy.serve([bare.address])
        eventually(lambda: haproxy.states() == {f"{HOST}:{bare.port}": "UP"}, within=3)

        assert asked(haproxy.port) == (status, "bare")


@pytest.mark.parametrize(
    ("service", "status"), [("none", 200), ("none", 404), ("", 200), ("jpblog", 200), ("blogs", 200), ("blog-1", 200)]
)
def test_who_answers_and_does_not_say_that_it_is_of_this_service_is_never_found_well(
    haproxy: Haproxy, status: int, service: str
) -> None:
    """A port of loopback that by now is another program's, which answers to any name."""
    with apps("right", "wrong") as (right, wrong):
        wrong.status, wrong.service = status, None if service == "none" else service
        haproxy.proxy.serve([right.address, wrong.address])
        seen = []

        def states() -> str:
            seen.append(haproxy.states()[f"{HOST}:{wrong.port}"])
            return seen[-1]

        assert haproxy.state(right) == "UP"
        assert answers(haproxy.port, 10) == {(200, "right"): 10}
        ends = time.monotonic() + 0.2  # many more of its checks
        while time.monotonic() < ends:
            states()
            time.sleep(0.02)
        assert set(seen) == {"DOWN"}  # not once was it found well
        assert wrong.served == []


def test_who_says_by_and_by_whose_it_is_is_served_and_who_becomes_anothers_is_not(haproxy: Haproxy) -> None:
    with apps("app") as (app,):
        app.service = "jpblog"
        haproxy.proxy.serve([app.address])
        eventually(lambda: haproxy.state(app) == "DOWN", within=3)
        assert asked(haproxy.port)[0] == 503
        app.service = SERVICE
        eventually(lambda: asked(haproxy.port) == (200, "app"), within=3)
        app.service = None
        eventually(lambda: haproxy.state(app) == "DOWN", within=3)
        assert asked(haproxy.port)[0] == 503


def test_an_app_that_is_up_again_is_served_again_without_being_registered_anew(haproxy: Haproxy) -> None:
    with apps("app") as (app,):
        haproxy.proxy.serve([app.address])
        app.domain = "elsewhere.example"
        eventually(lambda: haproxy.state(app) == "DOWN", within=3)
        assert asked(haproxy.port)[0] == 503
        app.domain = DOMAIN

        eventually(lambda: asked(haproxy.port) == (200, "app"), within=2)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_no_request_fails_while_one_of_two_servers_is_killed(unhurried: Haproxy, tmp_path: Path, how: int) -> None:
    (port,) = free_ports(1)
    killable = Program([sys.executable, "-c", KILLABLE, str(port)], tmp_path / "killable.log")
    try:
        with apps("stays") as (stays,), ThreadPoolExecutor(4) as pool:
            eventually(lambda: listens(port), within=5)
            unhurried.proxy.serve([stays.address, (HOST, port)])
            requests = [pool.submit(asked, unhurried.port) for _ in range(200)]
            eventually(lambda: sum(request.done() for request in requests) >= 50, within=5, every=0.001)
            killable.process.send_signal(how)
            seen = Counter(request.result(10) for request in requests)
    finally:
        killable.kill()

    assert set(seen) == {(200, "stays"), (200, "killable")}
    assert sum(seen.values()) == 200


# answers its health check, and leaves every request unread
DEAF = """
import socket, sys

server, kept = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=128), []
while True:
    kept.append(server.accept()[0])
    if kept[-1].recv(4, socket.MSG_PEEK) == b"HEAD":
        with kept.pop() as check:
            check.recv(4096)
            check.sendall(f"HTTP/1.1 200 OK\\r\\nX-Service: {sys.argv[2]}\\r\\nContent-Length: 0\\r\\n\\r\\n".encode())
"""


def test_requests_that_a_server_took_and_never_read_are_answered_by_another_when_it_is_killed(
    unhurried: Haproxy, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    deaf = Program([sys.executable, "-c", DEAF, str(port), SERVICE], tmp_path / "deaf.log")
    try:
        with apps("stays") as (stays,), ThreadPoolExecutor(8) as pool:
            eventually(lambda: listens(port), within=5)
            unhurried.proxy.serve([stays.address, (HOST, port)])
            requests = [pool.submit(asked, unhurried.port) for _ in range(8)]
            eventually(lambda: sum(request.done() for request in requests) == 4, within=3)
            deaf.kill()

            assert [request.result(5) for request in requests] == [(200, "stays")] * 8
    finally:
        deaf.kill()


# == the ambassador ==================================================================================================

# `follow` as it runs in its container, but for where etcd, the configuration and the socket are, and how long it drains
FOLLOW = """
import sys
from ambassador import follow

follow.ETCD, follow.CONFIGURATION, path, follow.DRAIN = *sys.argv[1:4], float(sys.argv[4])
follow.Proxy.__init__.__defaults__ = (path,)
follow.TIME_TO_LIVE = 1
del sys.argv[1:5]
sys.exit(follow.main())
"""


class Following(Ambassador):
    """The ambassador's program, with the HAProxy that it starts."""

    def __init__(self, folder: Path, etcd: str, *, drain: float = 5) -> None:
        super().__init__(folder)
        self._argv = [sys.executable, "-c", FOLLOW, etcd, str(self.configuration), self.socket, str(drain), SERVICE]
        self._log = folder / "follow.log"
        # HAProxy is found on PATH, under its name
        self._path = f"{Path(program('haproxy')).parent}:{os.environ['PATH']}"

    def start(self) -> Following:
        self.program = Program(
            self._argv, self._log, DOMAIN=DOMAIN, PATIENCE="1", PYTHONPATH=str(IMAGE), PATH=self._path
        )
        return self

    @property
    def haproxy(self) -> int:
        """The process of its HAProxy."""
        return int(told("show info", self.socket).partition("\nPid: ")[2].split()[0])

    def serves(self, *names: str) -> bool:
        """Whether exactly these apps answer (none: 503)."""
        with contextlib.suppress(OSError):
            seen = answers(self.port, 2 * len(names) or 1)
            return set(seen) == {(200, name) for name in names} if names else {it[0] for it in seen} == {503}
        return False


@contextlib.contextmanager
def followed(folder: Path, etcd: str, **how: float) -> Iterator[Following]:
    following = Following(folder, etcd, **how).start()
    try:
        eventually(following.up, within=5)
        yield following
    finally:
        following.program.kill()


@contextlib.contextmanager
def etcd_ambassador(folder: Path, own: str, *others: str) -> Iterator[str]:
    """The etcd ambassador, through which every container finds its machine's `own` etcd, or those of `others`; its
    address."""
    (port,) = free_ports(1)
    etcds = {f"coreos-{number}": etcd for number, etcd in enumerate((own, *others))}
    written = folder / "etcd.cfg"
    machine = {"MACHINE_NAME": "coreos-0", "MACHINE_ADDRESS": "coreos-0"}
    machines = " ".join(f"{name}={name}" for name in etcds)
    subprocess.run([ETCD_CONFIGURE, written], env=os.environ | machine | {"MACHINES": machines}, check=True)
    text = written.read_text().replace("bind :2379", f"bind {HOST}:{port}").replace("inter 1s", "inter 50ms")
    for name, etcd in etcds.items():
        assert text.count(f" {name}:2379") == (1 if int(name[7:]) < 5 else 0)
        text = text.replace(f" {name}:2379", f" {etcd}")
    written.write_text(text)
    started = Program([program("haproxy"), "-db", "-f", str(written)], folder / "etcd-amb.log")
    try:
        eventually(lambda: listens(port), within=5)
        yield f"{HOST}:{port}"
    finally:
        started.kill()


@contextlib.contextmanager
def etcd_proxy(folder: Path, etcd: RealEtcd) -> Iterator[str]:
    """etcd as it is on the machines beyond the fifth, no member: its address."""
    (port,) = free_ports(1)
    client = f"http://{HOST}:{port}"
    argv = [program("etcd"), "--proxy=on", f"--data-dir={folder}/proxy", f"--listen-client-urls={client}"]
    started = Program([*argv, f"--initial-cluster={etcd.initial_cluster}"], folder / "proxy.log")
    try:
        eventually(lambda: listens(port), within=8)
        yield f"{HOST}:{port}"
    finally:
        started.kill()


def test_another_members_etcd_is_asked_while_the_machines_own_takes_no_connection(
    etcd: RealEtcd, tmp_path: Path
) -> None:
    own = RealEtcd(tmp_path)
    (nobody,) = free_ports(1)
    try:
        own.client.put("/whose", "own", 60)
        etcd.client.put("/whose", "another", 60)
        with etcd_ambassador(tmp_path, own.address, f"{HOST}:{nobody}", etcd.address) as address:
            assert whose(address) == "own"
            own.kill()
            eventually(lambda: whose(address) == "another", within=2)
            own.start()
            eventually(lambda: whose(address) == "own", within=2)
    finally:
        own.kill()


def whose(address: str) -> str:
    with contextlib.suppress(EtcdSilent):
        return str(Etcd(address).get("/whose").node["value"])
    return ""


def test_machines_beyond_the_fifth_have_no_etcd_that_others_ask(etcd: RealEtcd, tmp_path: Path) -> None:
    beyond = [f"{HOST}:{port}" for port in free_ports(5)]
    etcd.client.put("/whose", "own", 60)
    with etcd_ambassador(tmp_path, etcd.address, *beyond) as address:
        assert whose(address) == "own"


def test_instances_are_followed_through_etcds_proxy_and_its_ambassador(etcd: RealEtcd, tmp_path: Path) -> None:
    with (
        apps("one", "two") as (one, two),
        etcd_proxy(tmp_path, etcd) as member,
        etcd_ambassador(tmp_path, member) as address,
        followed(tmp_path, address) as following,
    ):
        eventually(following.serves, within=2)
        key = etcd.instance(one.port)
        eventually(lambda: following.serves("one"), within=2)
        etcd.instance(two.port, "second")
        eventually(lambda: following.serves("one", "two"), within=2)
        etcd.raw("DELETE", key)
        eventually(lambda: following.serves("two"), within=2)
        etcd.instance(one.port, "second")
        eventually(lambda: following.serves("one"), within=2)
        etcd.raw("DELETE", DIRECTORY, recursive="true")
        eventually(following.serves, within=2)
        etcd.instance(two.port, ttl=1)
        eventually(lambda: following.serves("two"), within=2)
        eventually(following.serves, within=1 + 1 + 2)  # it lives for one second, and is spared for another

    assert "Traceback" not in following.program.said()


def test_an_instance_whose_registration_ran_out_stays_until_it_could_be_renewed(etcd: RealEtcd, tmp_path: Path) -> None:
    """As where etcd has a quorum again, and what its sidekick could not renew is past its time."""
    with apps("one", "two") as (one, two), followed(tmp_path, etcd.address) as following:
        etcd.instance(two.port, "second")
        key = etcd.instance(one.port, ttl=1)
        eventually(lambda: following.serves("one", "two"), within=2)
        eventually(lambda: etcd.node(key) is None, within=1 + 2)
        for _ in range(10):
            assert following.serves("one", "two")
            time.sleep(0.05)
        etcd.instance(one.port)
        time.sleep(1.5)  # longer than anybody is spared
        assert following.serves("one", "two")
        assert not re.search(r"^\S+ left$", following.program.said(), re.MULTILINE)


def test_instances_that_were_there_before_the_ambassador_are_served(etcd: RealEtcd, tmp_path: Path) -> None:
    with apps("one") as (one,):
        etcd.instance(one.port)
        with followed(tmp_path, etcd.address) as following:
            eventually(lambda: following.serves("one"), within=2)


def test_a_malformed_key_leaves_the_good_ones_and_is_told_once(etcd: RealEtcd, tmp_path: Path) -> None:
    with apps("one", "two") as (one, two), followed(tmp_path, etcd.address) as following:
        etcd.client.put(f"{DIRECTORY}/bad", "junk", 60)
        etcd.client.put(f"{DIRECTORY}/directory/below", "junk", 60)
        key = etcd.instance(one.port)
        eventually(lambda: following.serves("one"), within=2)
        etcd.instance(two.port, "second")
        eventually(lambda: following.serves("one", "two"), within=2)
        etcd.raw("DELETE", key)
        eventually(lambda: following.serves("two"), within=2)
        said = following.program.said()
        assert said.count(f"{DIRECTORY}/bad passed over") == 1
        assert said.count(f"{DIRECTORY}/directory passed over") == 1

        # spoiled otherwise: that is news
        etcd.client.put(f"{DIRECTORY}/bad", "more junk", 60)
        eventually(lambda: following.program.said().count(f"{DIRECTORY}/bad passed over") == 2, within=2)


def test_instances_beyond_the_places_are_told_of_once(etcd: RealEtcd, tmp_path: Path) -> None:
    dead = free_ports(18)
    with followed(tmp_path, etcd.address) as following:
        for number, port in enumerate(sorted(dead)):
            etcd.instance(port, f"{number:02}")
        eventually(lambda: "has no place" in following.program.said(), within=2)
        for number in range(3):
            etcd.client.put(f"{DIRECTORY}/bad", f"junk {number}", 60)
            eventually(lambda said=f"junk {number}": said in following.program.said(), within=2)  # type: ignore[misc]

        assert following.program.said().count("has no place") == 1


def test_while_etcd_is_away_the_servers_stay_and_then_are_followed_again(tmp_path: Path) -> None:
    own = RealEtcd(tmp_path)
    try:
        with (
            apps("one", "two") as (one, two),
            etcd_ambassador(tmp_path, own.address) as address,
            followed(tmp_path, address) as following,
        ):
            own.client.put(f"{DIRECTORY}/bad", "junk", 60)
            own.instance(one.port)
            eventually(lambda: following.serves("one"), within=2)
            own.kill()
            eventually(lambda: "EtcdSilent" in following.program.said(), within=3)
            for _ in range(12):
                assert following.serves("one")
                time.sleep(0.05)
            said = following.program.said()
            own.start()
            own.instance(two.port, "second")
            eventually(lambda: following.serves("one", "two"), within=4)
            own.raw("DELETE", KEY)
            eventually(lambda: following.serves("two"), within=1 + 2)  # spared for so long
    finally:
        own.kill()

    assert said.count("EtcdSilent") <= 3  # each way to be silent once, and not each half second
    assert following.program.said().count("passed over") == 1


def test_an_etcd_that_lost_everything_is_followed_too(tmp_path: Path) -> None:
    own = RealEtcd(tmp_path)
    try:
        with apps("one", "two") as (one, two), followed(tmp_path, own.address) as following:
            for number in range(20):
                own.client.put("/other", str(number), 60)
            own.instance(one.port)
            eventually(lambda: following.serves("one"), within=2)
            own.kill()
            shutil.rmtree(tmp_path / "etcd")
            own.start()
            eventually(following.serves, within=1 + 4)
            own.instance(two.port)  # at an index that is smaller than those before
            eventually(lambda: following.serves("two"), within=2)
    finally:
        own.kill()


def test_an_ambassador_without_etcd_answers_503_and_waits_for_it(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with followed(tmp_path, f"{HOST}:{port}") as following:
        eventually(following.serves, within=2)
        eventually(lambda: "EtcdSilent" in following.program.said(), within=2)
        assert following.program.process.poll() is None


def test_the_proxy_of_an_ambassador_is_told_whose_instances_it_looks_for(etcd: RealEtcd, tmp_path: Path) -> None:
    with apps("own", "another's") as (own, other), followed(tmp_path, etcd.address) as following:
        other.service = "jpblog"
        etcd.instance(own.port)
        etcd.instance(other.port, "second")
        eventually(lambda: following.state(other) == "DOWN", within=3)
        eventually(lambda: following.states()[f"{HOST}:{own.port}"] == "UP", within=3)

        assert following.serves("own")


def test_sigterm_lets_a_request_under_way_end_and_ends_with_0(etcd: RealEtcd, tmp_path: Path) -> None:
    with apps("slow one") as (slow,), ThreadPoolExecutor() as pool, followed(tmp_path, etcd.address) as following:
        etcd.instance(slow.port)
        eventually(lambda: following.serves("slow one"), within=2)
        request = pool.submit(asked, following.port, "/slow")
        assert slow.half_sent.wait(5)
        following.program.process.terminate()
        eventually(lambda: not listens(following.port), within=2)  # nobody else comes in
        assert following.program.process.poll() is None
        slow.go_on.set()

        assert request.result(5) == (200, "slow one")
        assert following.program.ended() == 0
    assert "Traceback" not in following.program.said()


def test_sigterm_ends_an_idle_ambassador_at_once(etcd: RealEtcd, tmp_path: Path) -> None:
    with apps("one") as (one,), followed(tmp_path, etcd.address) as following:
        etcd.instance(one.port)
        eventually(lambda: following.serves("one"), within=2)
        kept = http.client.HTTPConnection(HOST, following.port, timeout=5)
        kept.request("GET", "/", headers={"Host": DOMAIN})
        kept.getresponse().read()  # a connection that stays open, without a request
        following.program.process.terminate()

        assert following.program.ended(2) == 0
        kept.close()


def test_sigterm_while_etcd_is_silent_ends_with_0(tmp_path: Path) -> None:
    with (
        socket.create_server((HOST, 0)) as silent,  # takes the request and says nothing
        followed(tmp_path, f"{HOST}:{silent.getsockname()[1]}") as following,
    ):
        following.program.process.terminate()
        assert following.program.ended(2) == 0


def test_a_request_that_outlasts_the_drain_is_broken_off(etcd: RealEtcd, tmp_path: Path) -> None:
    with apps("slow one") as (slow,), ThreadPoolExecutor() as pool, followed(tmp_path, etcd.address, drain=0.3) as it:
        etcd.instance(slow.port)
        eventually(lambda: it.serves("slow one"), within=2)
        request = pool.submit(asked, it.port, "/slow")
        assert slow.half_sent.wait(5)
        it.program.process.terminate()

        assert it.program.ended(3) != 0
        with pytest.raises(http.client.IncompleteRead):
            request.result(5)
        assert not listens(it.port)


@pytest.mark.parametrize("when", ["while it waits", "while etcd is away"])
def test_an_ambassador_whose_proxy_died_ends_and_says_so_by_its_status(
    etcd: RealEtcd, tmp_path: Path, when: str
) -> None:
    (port,) = free_ports(1)
    address = etcd.address if when == "while it waits" else f"{HOST}:{port}"
    with followed(tmp_path, address) as following:
        time.sleep(0.3)
        os.kill(following.haproxy, signal.SIGKILL)

        assert following.program.ended(3) != 0


def test_an_ambassador_whose_proxy_cannot_start_ends_and_says_so_by_its_status(etcd: RealEtcd, tmp_path: Path) -> None:
    following = Following(tmp_path, etcd.address)
    following.configuration.write_text("nonsense\n")
    following.start()
    try:
        assert following.program.ended(3) != 0
    finally:
        following.program.kill()


def test_a_proxy_that_ended_before_anybody_looked_is_noticed(etcd: RealEtcd, tmp_path: Path) -> None:
    """The signal of a child's end comes once: here it comes before `follow` asks for it."""
    following = Following(tmp_path, etcd.address)
    quick = tmp_path / "bin"
    quick.mkdir()
    (quick / "haproxy").symlink_to("/bin/false")
    # whoever starts a program waits here until that one has ended, as on a machine with one slow processor
    slow = "import os, subprocess\nstarts = subprocess.Popen.__init__\n"
    slow += "def started(it, *how, **more):\n    starts(it, *how, **more)\n"
    slow += "    os.waitid(os.P_PID, it.pid, os.WEXITED | os.WNOWAIT)\n"
    slow += "subprocess.Popen.__init__ = started\n"
    argv = [sys.executable, "-c", slow + FOLLOW, *following._argv[3:]]
    started = Program(
        argv, tmp_path / "log", DOMAIN=DOMAIN, PATIENCE="1", PYTHONPATH=str(IMAGE), PATH=f"{quick}:{os.environ['PATH']}"
    )
    try:
        assert started.ended(3) != 0
    finally:
        started.kill()


# == the registration ================================================================================================

RUNNING = "c" * 64


def container(*bindings: tuple[str, str], port: str = "80/tcp", running: bool = True) -> dict[str, Any]:
    """What the Docker Engine says of a container, as far as anybody here reads it."""
    ports = {port: [{"HostIp": host, "HostPort": number} for host, number in bindings] or None}
    return {
        "Id": RUNNING,
        "Name": "/blog",
        "State": {"Status": "running" if running else "exited", "Running": running, "Pid": 1 if running else 0},
        "NetworkSettings": {"Ports": ports if running else {}},
    }


class EngineHandler(BaseHTTPRequestHandler):
    server: Engine

    def do_POST(self) -> None:
        self.server.killed.append(self.path)
        self.send_response(self.server.kills)
        self.send_header("Content-Length", "0" if self.server.kills == 204 else "2")
        self.end_headers()
        self.wfile.write(b"" if self.server.kills == 204 else b"{}")

    def do_GET(self) -> None:
        engine = self.server
        engine.asked.append(self.path)
        if engine.answer is None:
            engine.over.wait(10)
            return
        status, body = engine.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Engine(_Quiet, socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A Docker Engine that says of every container the same. `answer` is status and body; None is silence. `kills` is
    the status of a kill."""

    daemon_threads = True

    def __init__(self, path: str) -> None:
        super().__init__(path, EngineHandler)
        self.path = path
        self.asked: list[str] = []
        self.over = threading.Event()
        self.answer: tuple[int, bytes] | None = None
        self.killed: list[str] = []
        self.kills = 204

    def says(self, document: object, status: int = 200) -> None:
        self.answer = status, json.dumps(document).encode()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    started = Engine(str(tmp_path / "docker.sock"))
    with in_thread(started):
        yield started
        started.over.set()


def test_a_running_containers_port_is_where_it_is_published(engine: Engine) -> None:
    engine.says(container(("192.0.2.1", "49153")))

    assert published("blog", 80, engine.path) == ("192.0.2.1", 49153)
    assert engine.asked == ["/containers/blog/json"]


NOWHERE: dict[str, dict[str, Any]] = {
    "does not run": container(("192.0.2.1", "49153"), running=False),
    "publishes nothing": container(),
    "publishes another port": container(("192.0.2.1", "49153"), port="8080/tcp"),
    "publishes it by another protocol": container(("192.0.2.1", "49153"), port="80/udp"),
    "publishes to every address": container(("0.0.0.0", "49153"), ("::", "49153")),
    "publishes to no address that is named": container(("", "49153")),
    "has no ports": {**container(), "NetworkSettings": {"Ports": {}}},
    "has null for ports": {**container(), "NetworkSettings": {"Ports": None}},
}


@pytest.mark.parametrize("document", NOWHERE.values(), ids=list(NOWHERE))
def test_a_container_that_nobody_can_reach_is_nowhere(engine: Engine, document: dict[str, Any]) -> None:
    engine.says(document)

    assert published("blog", 80, engine.path) is None


def test_a_container_that_is_not_there_is_nowhere(engine: Engine) -> None:
    engine.says({"message": "No such container: blog"}, status=404)

    assert published("blog", 80, engine.path) is None


def test_of_two_bindings_the_one_that_can_be_reached_counts(engine: Engine) -> None:
    engine.says(container(("0.0.0.0", "49153"), ("192.0.2.1", "49154"), ("192.0.2.2", "49155")))

    assert published("blog", 80, engine.path) == ("192.0.2.1", 49154)


JUNK: dict[str, tuple[int, bytes]] = {
    "an error": (500, b'{"message":"layer does not exist"}'),
    "too many requests": (429, b"{}"),
    "nothing": (200, b""),
    "text": (200, b"<html>"),
    "no text": (200, b"\xff\xfe"),
    "a page that is not there": (404, b"404 page not found\n"),
    "a list": (200, b"[]"),
    "a number": (200, b"5"),
    "null": (200, b"null"),
    "an empty document": (200, b"{}"),
    "no state": (200, b'{"NetworkSettings": {"Ports": {}}}'),
    "a state that is null": (200, b'{"State": null}'),
    "no network settings": (200, b'{"State": {"Running": true}}'),
    "ports that are a list": (200, b'{"State": {"Running": true}, "NetworkSettings": {"Ports": ["80/tcp"]}}'),
    "bindings that are text": (200, json.dumps(
        {**container(), "NetworkSettings": {"Ports": {"80/tcp": ["192.0.2.1:49153"]}}}).encode()),
    "a binding without a port": (200, json.dumps(
        {**container(), "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "192.0.2.1"}]}}}).encode()),
    "a port that is empty": (200, json.dumps(container(("192.0.2.1", ""))).encode()),
}  # fmt: skip


@pytest.mark.parametrize("answer", JUNK.values(), ids=list(JUNK))
def test_an_engine_that_says_junk_leaves_it_unknown_where_a_container_is(
    engine: Engine, answer: tuple[int, bytes]
) -> None:
    engine.answer = answer

    with pytest.raises(EngineSilent) as raised:
        published("blog", 80, engine.path)
    assert 0 < len(str(raised.value)) < 300


def test_an_engine_that_is_not_there_leaves_it_unknown(tmp_path: Path) -> None:
    with pytest.raises(EngineSilent, match="No such file"):
        published("blog", 80, str(tmp_path / "docker.sock"))


def test_an_engine_that_is_silent_leaves_it_unknown(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = register._UnixConnection
    monkeypatch.setattr(register, "_UnixConnection", lambda path, timeout: connection(path, timeout / 50))

    with pytest.raises(EngineSilent, match="timed out"):
        published("blog", 80, engine.path)


ONE, TWO = ("192.0.2.1", 49153), ("192.0.2.1", 49154)


def value_of(etcd: RealEtcd) -> object:
    found = etcd.node()
    return found and json.loads(found["value"])


def where(address: tuple[str, int]) -> dict[str, object]:
    return {"host": address[0], "port": address[1]}


def test_a_registration_is_what_an_ambassador_reads(etcd: RealEtcd) -> None:
    registration = Registration(etcd.client, KEY, 5)

    assert registration.update(ONE) == f'{KEY} = {{"host": "192.0.2.1", "port": 49153}}'
    assert instances(etcd.client.get(DIRECTORY).node) == ({ONE}, [])
    found = etcd.node()
    assert found is not None and 3 <= found["ttl"] <= 5


def test_a_registration_that_stays_the_same_is_no_news_and_no_change(etcd: RealEtcd) -> None:
    registration = Registration(etcd.client, KEY, 5)
    registration.update(ONE)
    before = etcd.node()

    assert [registration.update(ONE) for _ in range(3)] == [""] * 3
    after = etcd.node()
    assert before is not None and after is not None
    assert after["createdIndex"] == before["createdIndex"]


def test_a_new_port_takes_the_place_of_the_old_one(etcd: RealEtcd) -> None:
    registration = Registration(etcd.client, KEY, 5)
    registration.update(ONE)

    assert registration.update(TWO) == f'{KEY} = {{"host": "192.0.2.1", "port": 49154}}'
    assert value_of(etcd) == where(TWO)


@pytest.mark.parametrize("spoiled", ["junk", None], ids=["changed", "deleted"])
def test_a_registration_that_somebody_spoiled_is_healed_by_the_next_round(etcd: RealEtcd, spoiled: str | None) -> None:
    registration = Registration(etcd.client, KEY, 5)
    registration.update(ONE)
    if spoiled:
        etcd.client.put(KEY, spoiled, 60)
    else:
        etcd.raw("DELETE", KEY)
    registration.update(ONE)

    found = etcd.node()
    assert found is not None and json.loads(found["value"]) == where(ONE) and found["ttl"] <= 5


def test_a_container_that_is_gone_takes_its_key_along_at_once_and_is_told_of_once(etcd: RealEtcd) -> None:
    registration = Registration(etcd.client, KEY, 5)
    registration.update(ONE)

    assert registration.update(None) == f"{KEY} removed: the container does not run"
    assert etcd.node() is None
    assert registration.update(None) == ""


def test_a_container_that_never_ran_touches_no_key(etcd: RealEtcd) -> None:
    etcd.client.put(KEY, "another's", 60)
    registration = Registration(etcd.client, KEY, 5)
    registration.update(None)
    registration.remove()

    found = etcd.node()
    assert found is not None and found["value"] == "another's"


def test_what_is_by_now_another_ones_registration_stays(etcd: RealEtcd) -> None:
    registration = Registration(etcd.client, KEY, 5)
    registration.update(ONE)
    other = Registration(etcd.client, KEY, 5)
    other.update(TWO)
    registration.remove()

    assert value_of(etcd) == where(TWO)


def test_a_removal_that_etcd_did_not_take_is_tried_again(etcd: RealEtcd, monkeypatch: pytest.MonkeyPatch) -> None:
    registration = Registration(etcd.client, KEY, 5)
    registration.update(ONE)
    with monkeypatch.context() as away, pytest.raises(EtcdSilent):
        away.setattr(etcd.client, "_address", f"{HOST}:{free_ports(1)[0]}")
        registration.update(None)
    assert etcd.node() is not None

    assert registration.update(None) != ""
    assert etcd.node() is None


def test_a_registration_that_a_signal_cuts_short_is_removed_all_the_same(
    etcd: RealEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM comes while the sidekick waits for etcd's answer: the key is there, and stays five seconds too long."""
    put = etcd.client.put

    def interrupted(key: str, value: str, ttl: int) -> None:
        put(key, value, ttl)
        raise KeyboardInterrupt

    registration = Registration(etcd.client, KEY, 60)
    with monkeypatch.context() as meanwhile, pytest.raises(KeyboardInterrupt):
        meanwhile.setattr(etcd.client, "put", interrupted)
        registration.update(ONE)
    registration.remove()

    assert etcd.node() is None


# `register` as it runs in its container, but for where etcd and the engine are, and how long a round takes
REGISTER = """
import sys
from ambassador import register

register.ETCD, engine, register.EVERY, register.TIME_TO_LIVE = *sys.argv[1:3], float(sys.argv[3]), int(sys.argv[4])
register.APP_LIMIT, register.HANGS_AFTER = 0.1, float(sys.argv[5])
published, kill = register.published, register.kill
register.published = lambda container, port: published(container, port, engine)
register.kill = lambda container: kill(container, engine)
del sys.argv[1:6]
sys.exit(register.main())
"""


@contextlib.contextmanager
def sidekick(
    folder: Path, etcd: str, engine: Engine, ttl: int = 5, hangs_after: float = 60, **environment: str
) -> Iterator[Program]:
    limits = ["0.05", str(ttl), str(hangs_after)]
    argv = [sys.executable, "-c", REGISTER, etcd, engine.path, *limits, "blog", "80", SERVICE]
    environment = {"MACHINE_NAME": "coreos-0", "PYTHONPATH": str(IMAGE), **environment}
    started = Program(argv, folder / "register.log", **environment)
    try:
        yield started
        assert "Traceback" not in started.said()
    finally:
        started.kill()


def test_a_sidekick_keeps_the_key_and_takes_it_along_at_sigterm(etcd: RealEtcd, engine: Engine, tmp_path: Path) -> None:
    engine.says(container(("192.0.2.1", "49153")))
    with sidekick(tmp_path, etcd.address, engine) as running:
        eventually(lambda: value_of(etcd) == where(ONE), within=2)
        engine.says(container(("192.0.2.1", "49154")))
        eventually(lambda: value_of(etcd) == where(TWO), within=1)
        etcd.client.put(KEY, "junk", 60)
        eventually(lambda: etcd.node() is not None and etcd.node()["value"] != "junk", within=1)  # type: ignore[index]
        assert value_of(etcd) == where(TWO)
        engine.says({"message": "No such container: blog"}, status=404)
        eventually(lambda: etcd.node() is None, within=1)
        engine.says(container(("192.0.2.1", "49153")))
        eventually(lambda: len(running.said().splitlines()) >= 4, within=1)
        assert value_of(etcd) == where(ONE)
        running.process.terminate()

        assert running.ended(2) == 0
        assert etcd.node() is None
        said = running.said().splitlines()
    # what was healed is no news: the key is what was said of it last
    assert [line.removeprefix(KEY).split()[0] for line in said] == ["=", "=", "removed:", "="]


def test_a_key_outlives_its_time_to_live_while_the_sidekick_lives_be_the_engine_busy_or_not(
    etcd: RealEtcd, engine: Engine, tmp_path: Path
) -> None:
    engine.says(container(("192.0.2.1", "49153")))
    with sidekick(tmp_path, etcd.address, engine, ttl=1) as running:
        eventually(lambda: value_of(etcd) == where(ONE), within=2)
        found = etcd.node()
        assert found is not None
        ends = time.monotonic() + 1.3
        while time.monotonic() < ends:
            still = etcd.node()
            assert still is not None and still["createdIndex"] == found["createdIndex"]
            time.sleep(0.05)

        engine.says({"message": "busy"}, status=500)  # nobody says that it is gone
        ends = time.monotonic() + 1.3
        while time.monotonic() < ends:
            assert value_of(etcd) == where(ONE)
            time.sleep(0.05)
        running.kill()  # as a machine that is lost
        eventually(lambda: etcd.node() is None, within=1 + 2)


@pytest.mark.parametrize(("factor", "most"), [({}, 5), ({"PATIENCE": "1"}, 5), ({"PATIENCE": "4"}, 20)])
def test_the_time_to_live_is_as_long_as_patience_has_it(
    etcd: RealEtcd, engine: Engine, tmp_path: Path, factor: dict[str, str], most: int
) -> None:
    engine.says(container(("192.0.2.1", "49153")))
    with sidekick(tmp_path, etcd.address, engine, **factor):
        eventually(lambda: etcd.node() is not None, within=2)
        found = etcd.node()
        assert found is not None and most - 2 <= found["ttl"] <= most


def test_a_sidekick_goes_on_while_the_engine_says_junk_and_says_so_once(
    etcd: RealEtcd, engine: Engine, tmp_path: Path
) -> None:
    engine.says("junk", status=500)
    with sidekick(tmp_path, etcd.address, engine) as running:
        eventually(lambda: len(engine.asked) > 5, within=3)
        assert [line.partition(":")[0] for line in running.said().splitlines()] == ["the Docker Engine"]
        engine.says({"State": {"Running": True}, "NetworkSettings": {}})
        count = len(engine.asked)
        eventually(lambda: len(engine.asked) > count + 3, within=3)
        engine.says(container(("192.0.2.1", "49153")))
        eventually(lambda: value_of(etcd) == where(ONE), within=2)


def test_a_sidekick_registers_again_when_etcd_is_back_and_ends_without_it(engine: Engine, tmp_path: Path) -> None:
    engine.says(container(("192.0.2.1", "49153")))
    own = RealEtcd(tmp_path)
    try:
        with sidekick(tmp_path, own.address, engine, ttl=1) as running:
            eventually(lambda: value_of(own) == where(ONE), within=2)
            own.kill()
            eventually(lambda: "etcd: " in running.said(), within=2)
            time.sleep(0.2)
            own.start()
            eventually(lambda: value_of(own) == where(ONE), within=3)
            assert running.said().count("etcd: ") <= 3

            own.kill()
            running.process.terminate()
            assert running.ended(3) == 0
            assert "the registration stays until its time is over: etcd: " in running.said()
    finally:
        own.kill()


def test_sigterm_ends_a_sidekick_that_waits_for_a_silent_engine(etcd: RealEtcd, engine: Engine, tmp_path: Path) -> None:
    with sidekick(tmp_path, etcd.address, engine) as running:
        eventually(lambda: engine.asked, within=3)
        running.process.terminate()

        assert running.ended(1) == 0


# == an app that hangs =================================================================================================


@contextlib.contextmanager
def mute() -> Iterator[Address]:
    """Takes connections, and says nothing: as an app whose processes are stopped."""
    with socket.create_server((HOST, 0)) as listening:
        yield listening.getsockname()


@pytest.mark.parametrize("status", [200, 404, 500])
def test_any_answer_is_one(status: int) -> None:
    with apps("app") as (app,):
        app.status = status
        assert register.answers(app.address, 1.0)
        app.domain = "another.example"  # it answers 503 to who asks for another's
        assert register.answers(app.address, 1.0)


def test_who_takes_a_connection_and_says_nothing_does_not_answer() -> None:
    with mute() as address:
        assert not register.answers(address, 0.05)
    assert not register.answers(address, 1.0)  # refused


class Scripted:
    """A clock, and an app that answers or not; a question that gets no answer takes a second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.well = 100.0, True
        monkeypatch.setattr(register, "answers", self.answers)
        monkeypatch.setattr(register, "time", self)

    def monotonic(self) -> float:
        return self.now

    def answers(self, address: Address, within: float) -> bool:
        self.now += 0 if self.well else within
        return self.well

    def rounds(self, watchdog: Watchdog, number: int, address: Address | None = ONE, pause: float = 1.0) -> list[bool]:
        """What it says in so many rounds, a pause behind each."""
        said = []
        for _ in range(number):
            said.append(watchdog.hangs(address))
            self.now += pause
        return said


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    return Scripted(monkeypatch)


def test_an_app_hangs_when_it_was_silent_for_ten_seconds_and_then_has_as_long_again(scripted: Scripted) -> None:
    watchdog = Watchdog(10.0, 1.0)
    assert not any(scripted.rounds(watchdog, 60))
    scripted.well = False

    # the first question finds it silent for a second, each further one for two more
    assert scripted.rounds(watchdog, 12) == [False] * 5 + [True] + [False] * 4 + [True, False]


def test_an_answer_in_between_is_a_new_beginning(scripted: Scripted) -> None:
    watchdog = Watchdog(10.0, 1.0)
    for _ in range(5):
        scripted.well = True
        assert not any(scripted.rounds(watchdog, 1))
        scripted.well = False
        assert not any(scripted.rounds(watchdog, 5))


def test_an_app_that_starts_has_as_long_to_answer_first(scripted: Scripted) -> None:
    watchdog = Watchdog(10.0, 1.0)
    scripted.rounds(watchdog, 3)
    scripted.well = False
    assert not any(scripted.rounds(watchdog, 5))
    assert not any(scripted.rounds(watchdog, 5, TWO))  # it began again, on another port
    assert not any(scripted.rounds(watchdog, 60, None))  # it runs nowhere
    assert not any(scripted.rounds(watchdog, 5, TWO))


def test_a_machine_that_stood_still_says_nothing_of_its_app(scripted: Scripted) -> None:
    watchdog = Watchdog(10.0, 1.0)
    scripted.rounds(watchdog, 3)
    scripted.now += 3600
    scripted.well = False

    assert not any(scripted.rounds(watchdog, 4))


@pytest.mark.parametrize("status", [204, 404, 409])
def test_what_ended_meanwhile_needs_no_killing(engine: Engine, status: int) -> None:
    engine.kills = status
    kill("blog", engine.path)

    assert engine.killed == ["/containers/blog/kill"]


def test_a_kill_that_is_refused_says_so(engine: Engine) -> None:
    engine.kills = 500
    with pytest.raises(EngineSilent, match="status 500"):
        kill("blog", engine.path)


def test_a_sidekick_kills_an_app_that_hangs_and_says_so(etcd: RealEtcd, engine: Engine, tmp_path: Path) -> None:
    started = sidekick(tmp_path, etcd.address, engine, hangs_after=1)
    with apps("app") as (app,), mute() as silent, started as running:
        engine.says(container((HOST, str(app.port))))
        eventually(lambda: value_of(etcd) == {"host": HOST, "port": app.port}, within=2)
        time.sleep(1.3)
        assert engine.killed == []

        engine.says(container((HOST, str(silent[1]))))
        eventually(lambda: engine.killed, within=3)
        engine.says({"message": "No such container: blog"}, status=404)
        eventually(lambda: etcd.node() is None, within=1)
    assert engine.killed == ["/containers/blog/kill"]
    assert f"blog has not answered at {HOST}:{silent[1]} for too long: killed" in running.said().splitlines()


# == what an ambassador knows ========================================================================================


@pytest.fixture
def shown(etcd: RealEtcd, haproxy: Haproxy, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, Any]]:
    monkeypatch.setattr(show, "ETCD", etcd.address)
    monkeypatch.setattr(show, "servers", functools.partial(servers, haproxy.socket))
    return lambda: json.loads(json.dumps(show.show(SERVICE)))


def test_of_a_service_without_instances_nothing_is_shown(shown: Callable[[], dict[str, Any]]) -> None:
    assert shown() == {"registered": [], "malformed": [], "servers": {}}


def test_servers_that_are_up_and_down_and_malformed_keys_are_shown(
    etcd: RealEtcd, haproxy: Haproxy, shown: Callable[[], dict[str, Any]]
) -> None:
    (dead,) = free_ports(1)
    with apps("one") as (one,):
        etcd.instance(one.port)
        etcd.instance(dead, "dead")
        etcd.client.put(f"{DIRECTORY}/bad", "junk", 60)
        etcd.client.put(f"{DIRECTORY}/directory/below", "x", 60)
        haproxy.proxy.serve([one.address, (HOST, dead)])
        servers = {f"{HOST}:{one.port}": "UP", f"{HOST}:{dead}": "DOWN"}
        eventually(lambda: shown()["servers"] == servers, within=3)

        document = shown()
        assert document["registered"] == sorted(servers)
        assert sorted(line.split()[0] for line in document["malformed"]) == [
            f"{DIRECTORY}/bad",
            f"{DIRECTORY}/directory",
        ]
        # a server that left is none, whatever its health was
        haproxy.proxy.serve([(HOST, dead)])
        assert list(shown()["servers"]) == [f"{HOST}:{dead}"]
        assert shown()["servers"][f"{HOST}:{dead}"] in ("UP", "DOWN")


def test_what_cannot_be_asked_is_not_shown_as_nothing(
    haproxy: Haproxy, shown: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as away, pytest.raises(EtcdSilent):
        away.setattr(show, "ETCD", f"{HOST}:{free_ports(1)[0]}")
        shown()
    haproxy.program.kill()
    with pytest.raises(ProxySilent):
        shown()


# -- after a silence of etcd -----------------------------------------------------------------------------------------


class ScriptedEtcd:
    """Gives what it is told to, one answer after the other; ends with an interrupt."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers = list(answers)
        self.waits: list[float] = []

    def get(self, key: str) -> Answer:
        if not self.answers:
            raise KeyboardInterrupt
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def wait(self, key: str, after: int, within: float) -> str:
        self.waits.append(within)
        if within < 1:
            time.sleep(within)
        return ""


class ServedProxy:
    def __init__(self) -> None:
        self.served: set[tuple[str, int]] = set()
        self.history: list[int] = []

    def serve(self, wanted: set[tuple[str, int]]) -> list[str]:
        self.served = set(wanted)
        self.history.append(len(wanted))
        return []


@pytest.mark.parametrize(
    ("silence", "served"),
    [
        ([], [1, 0, 0]),
        ([EtcdSilent("gone")], [1, 1, 0]),
        ([EtcdRefused(300, "no leader", 0)], [1, 1, 0]),
    ],
)
def test_after_a_silence_nobody_is_taken_out_for_a_while(
    monkeypatch: pytest.MonkeyPatch, silence: list[Exception], served: list[int]
) -> None:
    monkeypatch.setattr("ambassador.follow.AGAIN", 0.01)
    one = {"nodes": [{"key": "/services/app/m:app", "value": '{"host": "192.0.2.1", "port": 80}'}]}
    etcd, proxy = ScriptedEtcd(Answer(one, 1), *silence, Answer({}, 2), Answer({}, 3)), ServedProxy()

    with pytest.raises(KeyboardInterrupt):
        follow(cast("Etcd", etcd), "app", cast("Proxy", proxy), spare=0.2)

    assert proxy.history == served
    # it looks again when that time is over, not when the next change comes
    assert [within < 1 for within in etcd.waits] == [False, bool(silence), False]
