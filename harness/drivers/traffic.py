"""Traffic: a site asked at a steady rate while something changes, and what became of each request.

An open loop: a request starts when its time has come, whether those before it have ended or not, so that a site that
hangs does not make its own load smaller. Each asks for /version.txt: right is the version that is deployed, or was
deployed since requests go on; wrong is any other answer of status 200 (another site's, an old one), and failed is all
else.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from typing import Any

from harness.drivers.site import Page, Site
from harness.errors import HarnessError
from harness.record.log import Recorder
from harness.seams.http import SiteUnreachable, open_session
from harness.seams.patience import patience

RIGHT, WRONG, FAILED = "right", "wrong", "failed"
# Seconds whose requests the record counts together
BUCKET = 0.5
# requests that may be under way at once: at 20 a second, ones that take three seconds each (times PATIENCE)
AT_ONCE = 64
# Of one request, seconds: to connect and between two bytes, and for all of it
TIMEOUTS, WHOLE = (1.0, 2.0), 10.0


def request_to(name: str, domain: str, where: Callable[[], str]) -> Callable[[], Page]:
    """What asks a site which version it serves, at an address that is looked up each time."""

    def ask() -> Page:
        # a session of its own for each: requests' own is for one thread
        session = open_session(where(), [domain], None, timeouts=TIMEOUTS, whole=WHOLE)
        return Site(name, domain, session).fetch("/version.txt")

    return ask


@dataclass(frozen=True)
class Request:
    """One request: when it was due and ended (seconds of the monotonic clock), and how."""

    started: float
    ended: float
    outcome: str
    seen: str


@dataclass(frozen=True)
class Tally:
    """What became of the requests that ended since a moment, those that were under way then too.

    `right_after` is how many seconds after that moment the last one that was not right ended; 0 when all were right.
    """

    made: int
    failed: int
    wrong: int
    right_after: float
    first_seen: str

    @property
    def bad(self) -> int:
        return self.failed + self.wrong


class Traffic:
    """Requests to one site, from `start` to `stop`: `rate` a second, each answered as it should be when `ask` gives a
    page of status 200 whose text is `expected`; or what `deployed` says when another text comes (a version is deployed
    before it is served)."""

    def __init__(
        self,
        site: str,
        ask: Callable[[], Page],
        expected: str,
        rate: int,
        recorder: Recorder,
        deployed: Callable[[], str] | None = None,
    ) -> None:
        self.site = site
        self.rate = rate
        self._ask = ask
        self._right = {expected}
        self._deployed = deployed
        self._recorder = recorder
        self._requests: list[Request] = []
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(max_workers=math.ceil(AT_ONCE * patience()))
        self._futures: list[Future[None]] = []
        self._pacer = threading.Thread(target=self._pace, daemon=True)
        self._began = self._since = time.monotonic()
        self.change = ""
        self._changes: list[dict[str, Any]] = []

    def start(self) -> None:
        self._pacer.start()

    def changed(self, what: str) -> None:
        """From now on is what `tally` counts; what it counted so far goes into the record."""
        if self.change:
            self._note(self.tally())
        self.change, self._since = what, time.monotonic()

    def tally(self) -> Tally:
        requests = sorted((it for it in list(self._requests) if it.ended >= self._since), key=lambda it: it.started)
        bad = [it for it in requests if it.outcome != RIGHT]
        return Tally(
            made=len(requests),
            failed=sum(it.outcome == FAILED for it in requests),
            wrong=sum(it.outcome == WRONG for it in requests),
            right_after=round(max((it.ended for it in bad), default=self._since) - self._since, 2),
            first_seen=next((it.seen for it in bad if it.outcome == WRONG), bad[0].seen if bad else ""),
        )

    def settled(self) -> Tally:
        """The tally, when the requests that are under way now have ended: one that hangs has not gone well. What was
        answered wrongly counts since the start: a later change does not excuse it."""
        wait(list(self._futures))
        wrong = sorted((it for it in list(self._requests) if it.outcome == WRONG), key=lambda it: it.started)
        return replace(self.tally(), wrong=len(wrong), first_seen=wrong[0].seen) if wrong else self.tally()

    def right_for(self) -> float:
        """Seconds from the end of the last request that was not right (the change, when all were) to that of the last
        one that was: a site that hangs is not right meanwhile."""
        right = [it.ended for it in list(self._requests) if it.outcome == RIGHT]
        return max(max(right, default=0.0) - self._since - self.tally().right_after, 0.0)

    @property
    def last_seen(self) -> str:
        """What came of the request that ended last."""
        return self._requests[-1].seen if self._requests else ""

    def stop(self) -> Tally:
        """Ends, waits for the requests under way, and writes what became of them into the record. Raises what `ask`
        raised, if it was no answer of the platform's."""
        self._ended.set()
        self._pacer.join()
        self._pool.shutdown(cancel_futures=True)
        tally = self.tally()
        self._note(tally)
        self._recorder.emit(
            "traffic", site=self.site, rate=self.rate, bucket=BUCKET, changes=self._changes, **self._counted()
        )
        for future in self._futures:
            if not future.cancelled():
                future.result()
        return tally

    def _counted(self) -> dict[str, list[int]]:
        """How many requests ended how, for each bucket from the start on."""
        due = [(max(int((it.started - self._began) / BUCKET), 0), it.outcome) for it in self._requests]
        length = max((bucket for bucket, _ in due), default=-1) + 1
        counts = Counter(due)
        return {it: [counts[bucket, it] for bucket in range(length)] for it in (RIGHT, FAILED, WRONG)}

    def _note(self, tally: Tally) -> None:
        if self.change:
            after = round(self._since - self._began, 2)
            self._changes.append({"what": self.change, "after": after, **asdict(tally)})
        summary = (
            f"{tally.made} requests, {tally.failed} failed, {tally.wrong} wrong, right after {tally.right_after:g} s"
        )
        self._recorder.emit(
            "note",
            text=f"site {self.site} at {self.rate} a second, {self.change or 'no change'}: {summary}"
            + (f" (first: {tally.first_seen})" if tally.first_seen else ""),
        )

    def _pace(self) -> None:
        began = time.monotonic()
        for number in range(10**9):
            due = began + number / self.rate
            if self._ended.wait(max(due - time.monotonic(), 0)):
                return
            self._futures.append(self._pool.submit(self._one, due))

    def _one(self, started: float) -> None:
        outcome, seen = FAILED, "no answer"
        try:
            page = self._ask()
            seen = f"status {page.status}"
            if page.status == 200:
                seen = page.text.strip()[:80]
                outcome = RIGHT if self._is_right(seen) else WRONG
        except SiteUnreachable as failed:
            seen = failed.seen
        except HarnessError as failed:
            seen = str(failed)
        finally:
            self._requests.append(Request(started, time.monotonic(), outcome, seen))

    def _is_right(self, version: str) -> bool:
        if version not in self._right and self._deployed is not None:
            self._right.add(self._deployed())
        return version in self._right


def remembered(look: Callable[[], str], seconds: float) -> Callable[[], str]:
    """The answer of `look`, asked again when it is older than so many seconds; of threads that ask at once one does."""
    lock = threading.Lock()
    known: tuple[float, str] | None = None

    def answer() -> str:
        nonlocal known
        with lock:
            if known is None or time.monotonic() - known[0] > seconds:
                known = (time.monotonic(), look())
            return known[1]

    return answer
