"""Requests all the while: their rate, what became of each, and what is said of them since a change.

What is counted is proven on a clock of our own, request by request; the rate, what is under way at once and how an
answer is judged against a real server on loopback.
"""

from __future__ import annotations

import http.server
import itertools
import re
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from harness.drivers import traffic as traffic_module
from harness.drivers.contents import Deployed
from harness.drivers.site import Page, Site
from harness.drivers.terraform import Outputs
from harness.drivers.traffic import BUCKET, FAILED, RIGHT, WRONG, Tally, Traffic, remembered
from harness.errors import CommandFailed, HarnessError
from harness.record.log import Recorder
from harness.seams.http import SiteUnreachable, open_session
from tests.fakes import FakeClock

VERSION = "20260801-abcdef12"
DOMAIN = "genkisugimoto.com"
LONG = 10.0  # seconds after which a test gives up waiting
Events = Callable[..., list[dict[str, Any]]]


def page(text: str = VERSION, status: int = 200) -> Page:
    return Page(f"http://{DOMAIN}/version.txt", status, "text/plain", text.encode())


def until(what: Callable[[], object]) -> None:
    """Waits for something that is soon so."""
    end = time.monotonic() + LONG
    while not what():
        assert time.monotonic() < end, "it did not become so"
        time.sleep(0.005)


# == what is counted =================================================================================================


@pytest.fixture
def stopped_clock(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """The clock that requests are timed by."""
    monkeypatch.setattr(traffic_module, "time", clock)
    return clock


class Stream:
    """Requests one after the other: each takes so many seconds and ends so."""

    def __init__(self, clock: FakeClock, recorder: Recorder) -> None:
        self.clock = clock
        self.traffic = Traffic("blog", self._ask, VERSION, 20, recorder)
        self._next: tuple[float, Page | BaseException, str] = (0, page(), "")

    def ends(
        self, seconds: float, answer: Page | BaseException | None = None, change: str = "", late: float = 0
    ) -> None:
        """A request starts, so many seconds after it was due, and ends; `change` is what changes when half of its time
        has passed."""
        self._next = (seconds, answer or page(), change)
        future = self.traffic._pool.submit(self.traffic._one, self.clock.now - late)  # as the pacer starts it
        self.traffic._futures.append(future)
        future.exception()

    def stop(self) -> Tally:
        """The end, before the pacer has started a request of its own."""
        self.traffic._ended.set()
        self.traffic.start()
        return self.traffic.stop()

    def _ask(self) -> Page:
        seconds, answer, change = self._next
        self.clock.now += seconds / 2
        if change:
            self.traffic.changed(change)
        self.clock.now += seconds / 2
        if isinstance(answer, BaseException):
            raise answer
        return answer


@pytest.fixture
def stream(stopped_clock: FakeClock, recorder: Recorder) -> Iterator[Stream]:
    stream = Stream(stopped_clock, recorder)
    yield stream
    stream.traffic._pool.shutdown()


UNREACHABLE = SiteUnreachable("the site cannot be reached at all", seen="connection refused")


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (page("sorry", 503), "status 503"),
        (page(VERSION, 404), "status 404"),
        (page(VERSION, 206), "status 206"),
        (UNREACHABLE, "connection refused"),
        (HarnessError("the name has no address"), "the name has no address"),
        (CommandFailed(["dig"], 9, "", "no servers"), "command `dig` ended with 9: no servers"),
    ],
)
def test_failed_is_all_that_is_no_answer_of_status_200(stream: Stream, answer: Page | BaseException, seen: str) -> None:
    stream.ends(1, answer)

    assert stream.traffic.tally() == Tally(made=1, failed=1, wrong=0, right_after=1, first_seen=seen)
    assert stream.traffic.last_seen == seen


@pytest.mark.parametrize("answer", [page("20260731-00000000"), page("<html>"), page(f"{VERSION}0"), page(VERSION[:-1])])
def test_another_answer_of_status_200_is_wrong_and_never_failed(stream: Stream, answer: Page) -> None:
    stream.ends(1, answer)

    assert stream.traffic.tally() == Tally(made=1, failed=0, wrong=1, right_after=1, first_seen=answer.text)


def test_empty_answer_is_wrong(stream: Stream) -> None:
    stream.ends(1, page(""))

    assert (stream.traffic.tally().wrong, stream.traffic.tally().failed) == (1, 0)


def test_long_answer_is_cut(stream: Stream) -> None:
    stream.ends(1, page("x" * 5000))

    assert stream.traffic.tally().first_seen == "x" * 80


UNFORESEEN = [RuntimeError("a bug"), KeyError("blog"), OSError(24, "Too many open files")]


@pytest.mark.parametrize("error", UNFORESEEN)
def test_error_that_nobody_foresaw_is_a_failed_request(stream: Stream, error: BaseException) -> None:
    stream.ends(1, error)
    stream.ends(1)

    assert stream.traffic.tally() == Tally(made=2, failed=1, wrong=0, right_after=1, first_seen="no answer")


@pytest.mark.parametrize("error", UNFORESEEN)
def test_error_that_nobody_foresaw_is_told_at_the_end(stream: Stream, events: Events, error: BaseException) -> None:
    """The first of them, behind the note: it is no site's fault, and nobody may take it for one."""
    for answer in (page(), error, UNREACHABLE, ValueError("the second bug")):
        stream.ends(1, answer)

    with pytest.raises(type(error)) as raised:
        stream.stop()

    assert raised.value is error
    (note,) = events("note")
    assert "4 requests, 3 failed, 0 wrong" in note["text"]


@pytest.mark.parametrize("answer", [UNREACHABLE, HarnessError("no address"), CommandFailed(["dig"], 9, "", "")])
def test_what_the_platform_fails_to_answer_is_no_error_of_ours(stream: Stream, answer: BaseException) -> None:
    stream.ends(1, answer)

    assert stream.stop().failed == 1


@pytest.mark.parametrize("text", [VERSION, f"{VERSION}\n", f"{VERSION}\r\n"])
def test_version_that_is_deployed_is_right(stream: Stream, text: str) -> None:
    stream.ends(1, page(text))

    assert stream.traffic.tally() == Tally(made=1, failed=0, wrong=0, right_after=0, first_seen="")
    assert stream.traffic.last_seen == VERSION


def test_version_that_is_deployed_meanwhile_is_right_and_the_one_before_too(
    stopped_clock: FakeClock, recorder: Recorder
) -> None:
    deployed = VERSION
    asked: list[str] = []

    def now() -> str:
        asked.append(deployed)
        return deployed

    stream = Stream(stopped_clock, recorder)
    stream.traffic._deployed = now
    stream.ends(1)
    assert asked == []

    stream.ends(1, page("new"))
    assert stream.traffic.tally().wrong == 1  # nobody has deployed it yet
    deployed = "new"
    for answer in (page("new"), page(), page("new")):
        stream.ends(1, answer)
    stream.ends(1, page("another"))

    assert (stream.traffic.tally().made, stream.traffic.tally().wrong) == (6, 2)
    assert asked == [VERSION, "new", "new"]
    stream.traffic._pool.shutdown()


def test_nothing_has_been_asked_yet(stream: Stream) -> None:
    assert stream.traffic.tally() == Tally(0, 0, 0, 0, "")
    assert (stream.traffic.last_seen, stream.traffic.right_for()) == ("", 0)


def test_first_seen_is_the_wrong_one_though_others_failed_before(stream: Stream) -> None:
    stream.ends(1, UNREACHABLE)
    stream.ends(1, page("old-version"))
    stream.ends(1, page("other-version"))

    assert stream.traffic.tally() == Tally(made=3, failed=1, wrong=2, right_after=3, first_seen="old-version")
    assert stream.traffic.tally().bad == 3


def test_first_seen_is_the_first_that_failed_where_none_was_wrong(stream: Stream) -> None:
    stream.ends(1)
    stream.ends(1, page(status=502))
    stream.ends(1, UNREACHABLE)

    assert stream.traffic.tally().first_seen == "status 502"


def test_first_is_the_one_that_was_due_first_though_it_started_late(stream: Stream) -> None:
    """All who may ask at once were busy: what came of it belongs to the moment at which it was due."""
    stream.ends(1, page(status=502))
    stream.ends(1, page(status=504), late=3)

    assert stream.traffic.tally().first_seen == "status 504"


def test_right_after_the_last_that_was_not(stream: Stream) -> None:
    stream.traffic.changed("a unit starts again")
    for answer in (page(), page(status=503), page(), UNREACHABLE, page(), page()):
        stream.ends(0.5, answer)

    assert stream.traffic.tally() == Tally(made=6, failed=2, wrong=0, right_after=2, first_seen="status 503")


def test_change_starts_the_count_anew(stream: Stream) -> None:
    stream.ends(1, UNREACHABLE)
    stream.ends(1, page("old-version"))
    stream.clock.now += 0.1
    stream.traffic.changed("a unit starts again")

    assert stream.traffic.tally() == Tally(0, 0, 0, 0, "")

    stream.ends(1)
    assert stream.traffic.tally() == Tally(1, 0, 0, 0, "")
    assert stream.traffic.change == "a unit starts again"


@pytest.mark.parametrize("changes", [1, 2, 3])
def test_wrong_answer_counts_whatever_changes_after_it(stream: Stream, events: Events, changes: int) -> None:
    """Each line that is typed is a change: between two of them another site's page was served."""
    stream.traffic.changed("a fault is injected")
    stream.ends(1, page("another site's page"))
    for number in range(changes):
        stream.clock.now += 0.1
        stream.traffic.changed(f"line {number} is typed")
        stream.ends(1, page("an old version" if number == 1 else VERSION))
    wrong = 1 + (changes > 1)

    settled = stream.traffic.settled()

    assert (settled.made, settled.failed, settled.wrong, settled.first_seen) == (1, 0, wrong, "another site's page")
    stream.stop()
    (recorded,) = events("traffic")
    assert [it["wrong"] for it in recorded["changes"]] == [1, 0, 1, 0][: changes + 1]
    assert sum(recorded["wrong"]) == wrong


def test_request_that_was_under_way_counts_as_after_the_change(stream: Stream) -> None:
    stream.ends(1, page(status=502))
    stream.ends(3, page(status=503), change="a unit starts again")

    assert stream.traffic.tally() == Tally(made=1, failed=1, wrong=0, right_after=1.5, first_seen="status 503")


@pytest.mark.parametrize("before", [UNREACHABLE, page()])
def test_right_for_starts_at_the_change_when_all_are_right(stream: Stream, before: Page | BaseException) -> None:
    stream.ends(1, before)
    stream.clock.now += 0.1
    stream.traffic.changed("a unit starts again")
    assert stream.traffic.right_for() == 0  # nothing has ended since

    stream.clock.now += 4
    assert stream.traffic.right_for() == 0

    stream.ends(1)
    assert stream.traffic.right_for() == pytest.approx(5)


@pytest.mark.parametrize("answer", [UNREACHABLE, page("old-version")])
def test_right_for_starts_at_the_last_that_was_not(stream: Stream, answer: Page | BaseException) -> None:
    stream.traffic.changed("a unit starts again")
    stream.ends(1, answer)
    stream.clock.now += 2
    assert stream.traffic.right_for() == 0  # nothing right has ended since

    stream.ends(0.25)
    assert stream.traffic.right_for() == pytest.approx(2.25)

    stream.ends(0.25, answer)
    stream.ends(0.5)
    assert stream.traffic.right_for() == pytest.approx(0.5)


def test_site_that_hangs_is_not_right_meanwhile(stream: Stream) -> None:
    """No request ends for five seconds: of that time nothing is known."""
    stream.traffic.changed("a machine is lost")
    stream.ends(0.1)
    stream.clock.now += 5
    assert stream.traffic.right_for() == pytest.approx(0.1)

    stream.ends(0.1, UNREACHABLE)  # one that hung
    stream.clock.now += 5
    assert stream.traffic.right_for() == 0

    stream.ends(0.1)
    stream.clock.now += 5
    assert stream.traffic.right_for() == pytest.approx(5.1)


def test_wrong_request_that_ends_after_a_right_one_is_the_last_word(stream: Stream) -> None:
    stream.traffic.changed("a machine is lost")
    for answer in (page(), page(), page("old-version")):
        stream.ends(2, answer)

    assert stream.traffic.right_for() == 0


# == the end =========================================================================================================


def test_end_is_one_note_with_the_figures(stream: Stream, events: Events) -> None:
    stream.traffic.changed("a unit starts again")
    for answer in (page(), page("old-version"), UNREACHABLE, page()):
        stream.ends(0.75, answer)

    assert stream.stop() == Tally(made=4, failed=1, wrong=1, right_after=2.25, first_seen="old-version")
    (note,) = events("note")
    assert note["text"] == (
        "site blog at 20 a second, a unit starts again: 4 requests, 1 failed, 1 wrong, right after 2.25 s"
        " (first: old-version)"
    )


def test_every_change_has_a_note_of_its_own(stream: Stream, events: Events) -> None:
    """What was counted since the one before is not lost when the next one is made."""
    stream.ends(1, UNREACHABLE)  # before anything changed
    for number, change in enumerate(("it is stopped", "it is started"), 1):
        stream.clock.now += 0.1
        stream.traffic.changed(change)
        for _ in range(number):
            stream.ends(1, page(status=502 + number))
    stream.stop()

    assert [note["text"] for note in events("note")] == [
        "site blog at 20 a second, it is stopped: 1 requests, 1 failed, 0 wrong, right after 1 s (first: status 503)",
        "site blog at 20 a second, it is started: 2 requests, 2 failed, 0 wrong, right after 2 s (first: status 504)",
    ]


def test_record_has_what_became_of_the_requests_of_each_half_second(stream: Stream, events: Events) -> None:
    stream.ends(0.25)
    stream.ends(0.25, late=0.25)
    stream.clock.now += 0.25
    stream.traffic.changed("blog.service starts again")
    stream.ends(1.0, UNREACHABLE)
    stream.ends(0.25, page("old-version"))
    stream.clock.now += 0.25
    stream.traffic.changed("blog.service is stopped")
    stream.ends(0.25)
    stream.stop()

    (event,) = events("traffic")

    assert {name: event[name] for name in ("site", "rate", "bucket")} == {"site": "blog", "rate": 20, "bucket": BUCKET}
    assert [event[name] for name in (RIGHT, FAILED, WRONG)] == [[2, 0, 0, 0, 1], [0, 1, 0, 0, 0], [0, 0, 0, 1, 0]]
    assert event["changes"] == [
        {
            "what": "blog.service starts again", "after": 0.75,
            "made": 2, "failed": 1, "wrong": 1, "right_after": 1.25, "first_seen": "old-version",
        },
        {
            "what": "blog.service is stopped", "after": 2.25,
            "made": 1, "failed": 0, "wrong": 0, "right_after": 0.0, "first_seen": "",
        },
    ]  # fmt: skip


def test_record_of_requests_of_which_none_was_made(stream: Stream, events: Events) -> None:
    stream.stop()

    (event,) = events("traffic")
    assert event["right"] == event["failed"] == event["wrong"] == event["changes"] == []


def test_note_of_requests_that_were_right_while_nothing_changed(recorder: Recorder, events: Events) -> None:
    traffic = Traffic("jpblog", page, VERSION, 1000, recorder)
    traffic.start()
    until(lambda: traffic.tally().made >= 3)

    tally = traffic.stop()

    assert (tally.failed, tally.wrong, tally.right_after) == (0, 0, 0)
    (note,) = events("note")
    assert re.fullmatch(
        r"site jpblog at 1000 a second, no change: \d+ requests, 0 failed, 0 wrong, right after 0 s", note["text"]
    )


def test_end_waits_for_the_requests_under_way_and_starts_none(recorder: Recorder, events: Events) -> None:
    gate, asked = threading.Event(), itertools.count(1)
    seen: list[int] = []

    def ask() -> Page:
        seen.append(next(asked))
        assert gate.wait(LONG)
        return page("old-version")

    traffic = Traffic("blog", ask, VERSION, 100, recorder)
    traffic.start()
    until(lambda: len(seen) >= 5)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(traffic.stop)
        until(lambda: not traffic._pacer.is_alive())
        assert not ended.done() and traffic.tally().made == 0 and not events("note")
        gate.set()
        tally = ended.result(LONG)

    assert tally.made == tally.wrong == len(seen) >= 5
    assert len(events("note")) == 1


def test_requests_that_waited_for_their_turn_are_dropped_at_the_end(recorder: Recorder, events: Events) -> None:
    gate, asked = threading.Event(), threading.Event()

    def ask() -> Page:
        asked.set()
        assert gate.wait(LONG)
        return page()

    traffic = Traffic("blog", ask, VERSION, 200, recorder)
    traffic._pool = ThreadPoolExecutor(1)
    traffic.start()
    until(lambda: asked.is_set() and len(traffic._futures) >= 5)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(traffic.stop)
        until(lambda: any(future.cancelled() for future in traffic._futures))
        gate.set()
        tally = ended.result(LONG)

    assert (tally.made, tally.bad, len(events("note"))) == (1, 0, 1)


def test_request_started_when_it_was_due(recorder: Recorder) -> None:
    """Also where only one may ask at a time, and each takes as long as five of them are apart."""

    def ask() -> Page:
        time.sleep(0.05)
        return page()

    traffic = Traffic("blog", ask, VERSION, 100, recorder)
    traffic._pool = ThreadPoolExecutor(1)
    traffic.start()
    until(lambda: traffic.tally().made >= 4)
    traffic.stop()

    started = [request.started for request in traffic._requests]
    assert [moment - started[0] for moment in started] == pytest.approx([0.01 * it for it in range(len(started))])
    assert all(request.ended - request.started >= 0.05 for request in traffic._requests)


# == a real server ===================================================================================================


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # without the look-up of a name that HTTPServer makes

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what some tests are about."""


class Web:
    """A site: `text` and `status` after `seconds`; counts what it was asked, and how much of that at once."""

    def __init__(self) -> None:
        self.text, self.status, self.seconds = f"{VERSION}\n", 200, 0.0
        self.asked: list[tuple[str, str]] = []
        self.under_way, self.at_once = 0, 0
        self.over = threading.Event()
        self._lock = threading.Lock()
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with web._lock:
                    web.asked.append((self.headers["Host"], self.path))
                    web.under_way += 1
                    web.at_once = max(web.at_once, web.under_way)
                    status, body = web.status, web.text.encode()
                web.over.wait(web.seconds)
                with web._lock:
                    web.under_way -= 1
                self.send_response(status)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        self.server = Server(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.002})
        self.thread.start()

    def close(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
    yield web
    web.close()


def asking(address: str, timeouts: tuple[float, float] = (5.0, 5.0)) -> Callable[[], Page]:
    """Asks as a run's requests do, with a session for each."""

    def ask() -> Page:
        session = open_session(address, [DOMAIN], None, timeouts=timeouts)
        return Site("blog", DOMAIN, session).fetch("/version.txt")

    return ask


def test_refused_and_silent_sites_are_told_apart(web: Web, recorder: Recorder) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        refused = Traffic("blog", asking(f"127.0.0.1:{closed.getsockname()[1]}"), VERSION, 50, recorder)
        web.seconds = LONG
        silent = Traffic("blog", asking(web.address, (2.0, 0.1)), VERSION, 20, recorder)
        for traffic in (refused, silent):
            traffic.start()
        until(lambda: refused.tally().made >= 3 and silent.tally().made >= 3)
        told = [traffic.stop() for traffic in (refused, silent)]

    assert [(it.made - it.failed, it.wrong, it.first_seen) for it in told] == [
        (0, 0, "connection refused"),
        (0, 0, "no answer in time"),
    ]


def test_site_that_changes_is_seen_to(web: Web, recorder: Recorder) -> None:
    """Right, then 503, then another site's, then right again: no request is taken for what it was not."""
    traffic = Traffic("blog", asking(web.address), VERSION, 50, recorder)
    traffic.start()
    until(lambda: traffic.tally().made >= 3)
    assert traffic.tally().bad == 0

    traffic.changed("it is stopped")
    web.status = 503
    until(lambda: traffic.tally().failed >= 3)
    assert traffic.last_seen == "status 503" and traffic.tally().wrong == 0 and traffic.tally().right_after > 0

    web.status, web.text = 200, "another-version"
    until(lambda: traffic.tally().wrong >= 3)
    assert traffic.tally().first_seen == "another-version"

    web.text = VERSION
    until(lambda: traffic.right_for() >= 0.2)
    tally = traffic.stop()
    assert tally.failed >= 3 and tally.wrong >= 3 and tally.made >= tally.bad + 3
    assert set(web.asked) == {(DOMAIN, "/version.txt")}

    traffic.changed("nothing more")
    assert traffic.tally() == Tally(0, 0, 0, 0, "")


@pytest.mark.parametrize("seconds", [0.0, 0.6])
def test_rate_is_kept_also_when_each_answer_takes_long(web: Web, recorder: Recorder, seconds: float) -> None:
    """An open loop: who asked only after the answer would never ask six times at once. (How many it makes in a time is
    told by `test_what_is_late_is_caught_up_with`: a busy machine makes fewer, and never more.)"""
    web.seconds = seconds
    traffic = Traffic("blog", asking(web.address, (10.0, 10.0)), VERSION, 20, recorder)
    began = time.monotonic()
    traffic.start()
    until(lambda: len(web.asked) >= 12 and (not seconds or web.at_once >= 6))
    traffic._ended.set()
    lasted = time.monotonic() - began
    tally = traffic.stop()

    assert 12 <= tally.made <= 20 * lasted + 1, f"{tally.made} in {lasted:.2f} s"
    assert (tally.failed, tally.wrong) == (0, 0) and len(web.asked) == tally.made


def test_what_is_late_is_caught_up_with(stopped_clock: FakeClock, recorder: Recorder) -> None:
    """The first start takes a hundred seconds: those whose time has come meanwhile start at once."""
    starts: list[tuple[object, float]] = []
    began = stopped_clock.now
    done: Future[None] = Future()
    done.set_result(None)

    def submit(start: object, due: float) -> Future[None]:
        starts.append((start, due))
        stopped_clock.now += 100 if len(starts) == 1 else 0
        return done

    traffic = Traffic("blog", page, VERSION, 1, recorder)
    traffic._pool.submit = submit  # type: ignore[assignment]
    traffic.start()
    until(lambda: len(starts) >= 101)
    traffic.stop()

    assert [due - began for _, due in starts] == list(range(101))
    assert {start for start, _ in starts} == {traffic._one}


def test_requests_end_as_late_as_they_do(web: Web, recorder: Recorder) -> None:
    web.seconds, web.status = 0.3, 500
    traffic = Traffic("blog", asking(web.address), VERSION, 1, recorder)
    traffic.start()
    until(lambda: web.asked)
    tally = traffic.stop()

    assert tally.failed == tally.made >= 1 and 0.3 <= tally.right_after < LONG


# == as a run starts them (conftest.py) ==============================================================================

SITES = {"blog": DOMAIN, "jpblog": "jp.genkisugimoto.com"}


@pytest.fixture
def outputs() -> Outputs:
    return Outputs("192.0.2.10", {"coreos-0": "192.0.2.10"}, "core", "", SITES, "192.0.2.4", ("coreos-0",))


@pytest.fixture
def contents() -> Any:
    """The version of each site that was deployed last."""
    versions = {"blog": VERSION, "jpblog": "jp-version"}
    return SimpleNamespace(deployed_last=lambda site: Deployed(versions[site], "0" * 64))


class Names:
    """A name server: where it leads, or what it raises; counts how often it was asked."""

    def __init__(self) -> None:
        self.leads: str | HarnessError = ""
        self.asked: list[str] = []

    def lookup(self, name: str) -> str:
        self.asked.append(name)
        if isinstance(self.leads, HarnessError):
            raise self.leads
        return self.leads


@pytest.fixture
def name_server() -> Names:
    return Names()


@pytest.fixture
def cluster(outputs: Outputs, contents: Any, name_server: Names) -> Any:
    return SimpleNamespace(outputs=outputs, contents=contents, name_server=name_server)


Start = Callable[[str, str, int], None]


def test_site_is_asked_at_an_address_for_what_was_deployed_last(
    web: Web, start_traffic: Start, traffic: dict[str, Traffic], name_server: Names, events: Events
) -> None:
    start_traffic("blog", web.address, 50)
    start_traffic("jpblog", web.address, 50)
    until(lambda: all(stream.tally().made >= 2 for stream in traffic.values()))

    assert (traffic["blog"].tally().bad, traffic["jpblog"].tally().failed) == (0, 0)
    assert traffic["jpblog"].tally().first_seen == VERSION  # the one site's, asked for at the other's name
    assert set(web.asked) == {(domain, "/version.txt") for domain in SITES.values()}
    assert name_server.asked == [] and events("exchange") == []


def test_site_is_asked_where_its_name_leads(
    web: Web, start_traffic: Start, traffic: dict[str, Traffic], name_server: Names
) -> None:
    name_server.leads = web.address
    start_traffic("blog", "", 50)
    until(lambda: traffic["blog"].tally().made >= 5)

    assert traffic["blog"].tally().bad == 0
    assert set(name_server.asked) == {DOMAIN} and len(name_server.asked) < len(web.asked)


@pytest.mark.parametrize(
    ("leads", "seen"),
    [
        ("", "entry point '' is not an IP address, with or without a port"),
        (HarnessError("the name server does not answer"), "the name server does not answer"),
    ],
)
def test_name_that_leads_nowhere_is_a_failed_request(
    start_traffic: Start, traffic: dict[str, Traffic], name_server: Names, leads: str | HarnessError, seen: str
) -> None:
    name_server.leads = leads
    start_traffic("blog", "", 50)
    until(lambda: traffic["blog"].tally().made >= 2)

    tally = traffic["blog"].tally()
    assert (tally.failed, tally.first_seen) == (tally.made, seen)


@pytest.fixture
def watch() -> Any:
    """Who is told that what was seen before says nothing any more."""
    told: list[str] = []
    return SimpleNamespace(changed=lambda: told.append("changed"), told=told)


def test_change_is_told_to_every_stream(
    web: Web, start_traffic: Start, traffic: dict[str, Traffic], change: Callable[[str], None]
) -> None:
    for site in SITES:
        start_traffic(site, web.address, 1)
    until(lambda: all(stream.tally().made for stream in traffic.values()))

    change("coreos-1 is lost")

    assert [stream.change for stream in traffic.values()] == ["coreos-1 is lost"] * 2


def test_change_without_requests_is_told_to_who_looks(change: Callable[[str], None], watch: Any) -> None:
    change("coreos-1 is lost")

    assert watch.told == ["changed"]


# == an answer that counts for a while ===============================================================================


class Look:
    """Something to look up: gives a new answer each time, or raises."""

    def __init__(self) -> None:
        self.times = 0
        self.raises: BaseException | None = None

    def __call__(self) -> str:
        self.times += 1
        if self.raises:
            raise self.raises
        return f"answer {self.times}"


def test_error_is_not_remembered(stopped_clock: FakeClock) -> None:
    look = Look()
    look.raises = HarnessError("the name server does not answer")
    answer = remembered(look, 1.0)
    for _ in range(2):
        with pytest.raises(HarnessError, match="does not answer"):
            answer()

    look.raises = None
    assert (answer(), look.times) == ("answer 3", 3)


def test_error_does_not_bring_back_the_answer_before(stopped_clock: FakeClock) -> None:
    look = Look()
    answer = remembered(look, 1.0)
    assert answer() == "answer 1"
    stopped_clock.now += 1.1
    look.raises = HarnessError("the name server does not answer")

    for _ in range(2):
        with pytest.raises(HarnessError):
            answer()


def test_answer_is_asked_again_after_its_time(stopped_clock: FakeClock) -> None:
    answer = remembered(Look(), 1.0)
    seen = []
    for passed in (0, 0.5, 0.5, 0.1, 0.9, 0.2):
        stopped_clock.now += passed
        seen.append(answer())

    assert seen == ["answer 1", "answer 1", "answer 1", "answer 2", "answer 2", "answer 3"]


def test_of_many_threads_one_asks() -> None:
    barrier, look = threading.Barrier(20), Look()

    def slowly() -> str:
        time.sleep(0.05)
        return look()

    answer = remembered(slowly, LONG)

    def ask(_: int) -> str:
        barrier.wait(LONG)
        return answer()

    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(ask, range(20))) == {"answer 1"}
    assert look.times == 1


def test_two_answers_are_remembered_apart() -> None:
    one, other = Look(), Look()
    other()
    answers = remembered(one, LONG), remembered(other, LONG)

    assert [answer() for answer in answers * 2] == ["answer 1", "answer 2"] * 2


def test_outcomes_are_three() -> None:
    assert len({RIGHT, WRONG, FAILED}) == 3


def test_request_that_hangs_is_waited_for_before_anything_is_said(recorder: Recorder) -> None:
    """Zero failures among those that ended would be said of a site that does not answer any more."""
    released = threading.Event()

    def ask() -> Page:
        released.wait(5)
        raise HarnessError("no answer in time")

    stream = Traffic("blog", ask, VERSION, 50, recorder)
    stream.start()
    until(lambda: len(stream._futures) >= 3)
    assert stream.tally().made == 0
    threading.Timer(0.2, released.set).start()

    assert stream.settled().failed >= 3
    stream.stop()
