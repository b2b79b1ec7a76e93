"""The one record of a run: an append-only event log, and its fold.

`events.jsonl` gets one JSON object a line, as things happen, from every process of the run; each has

    t     seconds since the epoch          kind  what happened, see EVENTS
    ...   fields of that kind; while a scenario or step is under way also `scenario` and `step`

`fold()` turns the log into the document that is stored as run.json (SCHEMA). Report, JUnit, verdict and exit status are
pure functions of that document. A log that ends in the middle folds as well: what was started and never ended
is INTERRUPTED, what was planned and never started is NOT RUN.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError

SCHEMA = "platform.run/1"
# The fact that says by how much time limits were stretched
TIME_LIMITS = "time limits"
# ... and what of the selection chooses no scenario
NOTHING_CHOSEN = "chosen, and nothing"
# In a fingerprint, of what did not answer
SILENT = "no answer"

# kind -> what its fields mean. The fold knows no other kinds; the recorder refuses them.
EVENTS = {
    "run.started": "run_id, target, cluster (the run that made it), command (argv), folder, readme (the runbook's "
    "commands in order), remedies (rule -> what the README says to do), selection",
    "run.facts": "versions and properties of this machine and the toolchain, name -> value",
    "run.ended": "status (exit status), headline",
    "stage.started": "stage (setup, ground, runbook, evidence, diagnosis, teardown)",
    "stage.ended": "stage, seconds, outcome (passed, failed), error",
    "task.started": "task (one thing that set-up or teardown does)",
    "task.ended": "task, seconds, outcome (done, cached, failed, interrupted), error",
    "scenario.planned": "id, feature (path), feature_title, title, line, tags, steps [{keyword, text, line}]",
    "scenario.started": "id",
    "scenario.ended": "id, outcome (passed, failed, error, not_run), reason, seconds",
    "step.started": "id (scenario), index",
    "step.ended": "id, index, outcome (passed, failed), error {kind, message, expected, seen, where, paste}, seconds",
    "command.started": "id, argv or line, cwd, environment (names), typed (a line of the runbook)",
    "command.ended": "id, status, seconds, stdout, stderr",
    "exchange": "method, url, status or error, seconds, bytes",
    "remote": "machine, command, status, seconds, stdout, stderr",
    "wait.started": "id, what, within, hold_for",
    "wait.seen": "id, value (only when it changed)",
    "wait.ended": "id, outcome (reached, expired, late, failed), value, seconds",
    "artefact": "path (in the run folder), about",
    "fingerprint": "facts (thing -> what it is), before and after a run that must change nothing",
    "look": "number, seconds, bytes, silent (machines), unseen (what nobody could tell): a snapshot was taken",
    "causes": "look (number; 0: none), causes [{finding, consequences [finding]}] in their order; finding {rule, "
    "layer, subject [kind, name, machine], about (the subject in words), expected, seen, first_seen, since, paste "
    "(what to look at), repair (the line that mends it, or the section of the README that says how)}",
    "journal": "lines [{machine, time, text}] around the first cause, from all machines, by one clock",
    "traffic": "site, rate (requests a second), bucket (seconds), right, failed, wrong (numbers for each bucket from "
    "the start on, by when requests were due), changes [{what, after (seconds from the start), made, failed, wrong, "
    "right_after, first_seen}]; once for each stream of requests, when it ends",
    "leak": "what (container, network, volume, mount, process, ssh-agent), name, removed",
    "note": "text (one line for the person who watches)",
}


# kind of an event that is one thing by itself -> the list of the document that it goes into
LISTS = {
    "exchange": "exchanges",
    "remote": "remotes",
    "artefact": "artefacts",
    "look": "looks",
    "fingerprint": "fingerprints",
    "traffic": "traffic",
    "leak": "leaks",
    "note": "notes",
}
# What key material looks like, whatever encodes it: only a text with such a run is searched for long secrets.
LONG = re.compile(r"[A-Za-z0-9+/=%]{40,}")
# What says of itself that it is secret, be it known here or not: passwords in URLs, tokens of bearers, private keys,
# and names of variables, fields, options and headers that end so. Of keys only some are secret: etcd's are not
URL = re.compile(r"""(://[^\s/:@]*:)[^\s/"']+(?=@)""")
BEARER = re.compile(r"(\bBearer )\S+")
ENDINGS = (
    *("password", "passwd", "passphrase", "passcode", "secret", "token", "credential"),
    *("key", "pass", "pwd", "authorization"),
)
# The word of a name, and the quote before it, which may enclose the value too; which words are secret; and what stands
# between a name and its value
WORD = re.compile(r"""(\\*["'])?([\w.-]*)\Z""")
SECRET = re.compile(
    r"""(?i:passw(?:or)?d | passphrase | passcode | secret | token | credential | api[_-]?key | authorization
          | (?:access|account|auth|client|encryption|license|master|name|private|secret|service|session|shared|signing
              |storage)[_-]key | (?<=[a-z0-9][_-])(?:pass|pwd))\Z
        | [a-z](?<!public)(?<!primary)(?<!index)Key\Z | (?<!PUBLIC[_-])KEY\Z | PASS\Z""",
    re.VERBOSE,
)
BETWEEN = re.compile(r"""\\*["']?[ \t]*(?::=|=>|[=:])[ \t]*|\\*["'],?[ \t]*(?=\\*["'])|[ \t]+(?=\S)""")
# Values: between quotes, however often these were escaped (to the line's end, where it was cut); without them; after an
# option; and a header's, of which the scheme is told
QUOTED = re.compile(r"""(\\*["'])(?!\1)(?:(?s:.{1,4000}?)(?<!\\)(?=\1)|[^\n]+)""")
PLAIN = re.compile(
    r"""(?!(?:null|true|false|none)\b)(?:\[[a-z ]+\](?![^\s"',])|(?=[^\s"']{4})[^\s"']*[^\s"',])""", re.I
)
ARGUMENT = re.compile(r"""(?!-)[^\s"']+""")
SCHEME = re.compile(r"(?:Basic|Bearer|Digest|Negotiate|NTLM|Token|ApiKey|AWS4-HMAC-SHA256) +", re.I)
TO_THE_END = re.compile(r"(?:(?!\\+[nr])[^\r\n])+")
PRIVATE = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)


class Redactor:
    """Replaces known secret values by their names, whatever channel they come through.

    A value is hidden as it stands, base64-encoded and URL-encoded; of a value with several lines each line counts
    (a private key printed with an indent is still a private key). Values shorter than 8 characters are passed over:
    hiding them would tear holes into every text. What says of itself that it is secret (`NAME_KEY=...` of a machine
    that somebody else made, a private key) is hidden as well, in plain text.
    """

    def __init__(self) -> None:
        self._long: dict[str, str] = {}
        self._other: dict[str, str] = {}

    def add(self, name: str, value: str) -> None:
        lines = [line.strip() for line in value.splitlines() if not line.startswith("-----")]
        for part in {value.strip(), *lines}:
            if len(part) < 8:
                continue
            encoded = base64.b64encode(part.encode()).decode().rstrip("=")
            # the program base64 breaks its lines at 76
            wrapped = [encoded[at : at + 76] for at in range(0, len(encoded), 76)]
            in_json = (json.dumps(part, ensure_ascii=ascii)[1:-1] for ascii in (True, False))
            for form in (part, encoded, *wrapped, urllib.parse.quote(part, safe=""), *in_json):
                (self._long if LONG.fullmatch(form) else self._other)[form] = f"[{name}]"

    def __call__(self, text: str) -> str:
        text = _replaced(text, self._other)
        text = _replaced(text, self._long) if LONG.search(text) else text
        return PRIVATE.sub("[private key]", _without_named(text))


def _without_named(text: str) -> str:
    """A text without the values of what says by its name that it is secret."""
    if "@" in text:
        text = URL.sub(r"\1[masked]", text)
    if "Bearer " in text:
        text = BEARER.sub(r"\1[masked]", text)
    small = text.lower()
    if len(small) != len(text):  # a letter that is two when it is small
        small = re.sub("[A-Z]", lambda letter: letter[0].lower(), text)
    endings = [ending for ending in ENDINGS if ending in small]
    if not endings:
        return text
    parts, done = [], 0
    for end in sorted(found.end() for ending in endings for found in re.finditer(ending, small)):
        between = BETWEEN.match(text, end) if end >= done else None
        begins, ends = _value(text, end, between) if between else (end, end)
        if begins < ends:
            parts += [text[done:begins], "[masked]"]
            done = ends
    return "".join(parts) + text[done:]


def _value(text: str, end: int, stands_between: re.Match[str]) -> tuple[int, int]:
    """From where to where the value is of what is named up to `end`; nowhere, where it is not secret, or none."""
    opened, word = WORD.search(text[max(end - 80, 0) : end]).groups()  # type: ignore[union-attr]
    name = SECRET.search(word)
    between, at = stands_between[0], stands_between.end()
    if name is None:
        return at, at
    quoted, is_header = QUOTED.match(text, at), name[0].lower() == "authorization"
    if "=" not in between and ":" not in between:
        is_option = word.startswith("-")
        if quoted and (is_option or word.lower() in ("password", "passwd", "passphrase", "secret")):
            return quoted.end(1), quoted.end()
        argument = ARGUMENT.match(text, at) if is_option else None
        return argument.span() if argument else (at, at)
    if opened and not between.startswith(opened) and (is_header or between == "="):
        at = _after_scheme(text, at) if is_header else at
        closed = re.compile(rf"(?<!\\){re.escape(opened)}|\Z").search(text, at)
        return at, closed.start() if closed else at
    if quoted:
        return _after_scheme(text, quoted.end(1)) if is_header else quoted.end(1), quoted.end()
    if is_header:
        line = TO_THE_END.match(text, _after_scheme(text, at))
        return line.span() if line and not text.startswith("null", at) else (at, at)
    # `KEY= x` is an empty one, and `KEY: x` of a sentence is none
    if name[0] in ("KEY", "PASS") and (between in ("= ", "=\t") or (word == name[0] and between[0] == ":")):
        return at, at
    plain = (ARGUMENT if word.startswith("-") else PLAIN).match(text, at)
    return plain.span() if plain else (at, at)


def _after_scheme(text: str, at: int) -> int:
    scheme = SCHEME.match(text, at)
    return scheme.end() if scheme else at


def _replaced(text: str, forms: dict[str, str]) -> str:
    for form in sorted((form for form in forms if form in text), key=len, reverse=True):
        text = text.replace(form, forms[form])
    return text


@dataclass
class Task:
    """A task under way. Who does it says how it ends, where that is not `done`."""

    outcome: str = "done"


class Recorder:
    """Appends events to a log; safe from several threads and processes (one write(2) a line, O_APPEND)."""

    def __init__(self, path: Path, redact: Callable[[str], str] = str, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.redact = redact
        self._clock = clock
        self._context: dict[str, Any] = {}
        self._numbers = itertools.count(1)
        # why events could not be written; "" while all were
        self.lost = ""
        self._writing = threading.Lock()
        self._file: int | None = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def emit(self, kind: str, **fields: Any) -> None:
        if kind not in EVENTS:
            raise ValueError(f"unknown event {kind}")
        event = {"t": round(self._clock(), 4), "kind": kind, **self._context, **fields}
        # each text by itself: what JSON would escape could not be found in the line
        line = json.dumps(redacted(event, self.redact), ensure_ascii=False) + "\n"
        with self._writing:
            if self._file is None:
                return
            try:
                os.write(self._file, line.encode("utf-8", "replace"))
            except OSError as refused:
                # a full disk must not keep the teardown from its work: who ends the run asks what was lost
                self.lost = refused.strerror or str(refused)

    @contextmanager
    def task(self, name: str) -> Iterator[Task]:
        """Records a task: its time in seconds, and how it ended. One that raises has failed, unless it was said to be
        interrupted; what is raised comes out."""
        self.emit("task.started", task=name)
        task, started, error = Task(), time.monotonic(), None
        try:
            yield task
        except BaseException as failed:
            if task.outcome != "interrupted":
                task.outcome = "failed"
                error = str(failed) if isinstance(failed, HarnessError | OSError | subprocess.SubprocessError) else None
            raise
        finally:
            seconds = round(time.monotonic() - started, 3)
            self.emit("task.ended", task=name, seconds=seconds, outcome=task.outcome, error=error)

    def new_id(self, prefix: str) -> str:
        """An id that no other event of the run has: it carries the process."""
        return f"{prefix}-{os.getpid()}-{next(self._numbers)}"

    def within(self, **context: Any) -> None:
        """Sets what is under way (scenario, step); None takes a name away."""
        self._context.update(context)
        self._context = {name: value for name, value in self._context.items() if value is not None}

    def close(self) -> None:
        """Ends the log. What a machine answers later, that nobody waited for, goes nowhere: not into another file."""
        with self._writing:
            if self._file is not None:
                os.close(self._file)
            self._file = None


def redacted(value: Any, redact: Callable[[str], str]) -> Any:
    """The value as JSON knows it, with every text in it redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact(str(name)): redacted(item, redact) for name, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [redacted(item, redact) for item in value]
    return value if isinstance(value, int | float | None) else redact(str(value))


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Events of a log. What a killed process left half-written is passed over, in the middle of the log too."""
    for line in path.read_bytes().split(b"\n"):
        # an event that another process appended to a torn line is the last object of that line
        for text in (line, line[max(line.rfind(b'{"t": '), 0) :]):
            event = _event(text)
            if event is not None:
                yield event
                break


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and event.get("kind") in EVENTS and "t" in event else None


def fold(events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The document of a run (see the module's head), from its events in order."""
    folding = _Folding()
    for event in events:
        fields = dict(event)
        kind, t = fields.pop("kind"), fields.pop("t")
        folding.run["last_event"] = t
        folding.take(kind, t, fields)
    return folding.run


class _Folding:
    """The document so far, and what in it has begun and not ended. An event whose beginning was lost says nothing: the
    run is not lost for it."""

    def __init__(self) -> None:
        self.run: dict[str, Any] = {
            "schema": SCHEMA, "run_id": None, "target": None, "cluster": None, "command": [], "folder": None,
            "readme": [], "remedies": {},
            "selection": None, "started": None, "ended": None, "status": None, "headline": "",
            "facts": {}, "stages": [], "tasks": [], "scenarios": [], "commands": [], "exchanges": [], "remotes": [],
            "waits": [], "looks": [], "artefacts": [], "fingerprints": [], "causes": [], "causes_look": 0,
            "journal": [], "traffic": [], "leaks": [], "notes": [],
            "last_event": None,
        }  # fmt: skip
        self._open: dict[tuple[str, Any], dict[str, Any]] = {}

    def take(self, kind: str, t: float, fields: dict[str, Any]) -> None:
        subject, _, phase = kind.partition(".")
        if subject == "run":
            self._of_run(phase, t, fields)
        elif subject in ("stage", "task", "command", "wait"):
            self._of_doing(subject, phase, t, fields)
        elif subject == "scenario":
            self._of_scenario(phase, t, fields)
        elif subject == "step":
            self._of_step(phase, t, fields)
        elif kind == "causes":
            self.run.update(causes=fields["causes"], causes_look=fields.get("look", 0))
        elif kind == "journal":
            self.run["journal"] = fields["lines"]
        else:
            self.run[LISTS[kind]].append({**fields, "t": t})

    def _of_run(self, phase: str, t: float, fields: dict[str, Any]) -> None:
        if phase == "facts":
            self.run["facts"].update(fields)
        else:
            self.run.update(fields, **{phase: t})

    def _of_doing(self, subject: str, phase: str, t: float, fields: dict[str, Any]) -> None:
        """What has a beginning and an end: a stage, a task, a command, a wait."""
        table, key = f"{subject}s", fields[subject] if subject in ("stage", "task") else fields["id"]
        if phase == "started":
            item = {**fields, "started": t, "ended": None, "outcome": "interrupted"}
            self._open[table, key] = item if subject != "wait" else {**item, "seen": []}
            self.run[table].append(self._open[table, key])
        elif phase == "seen":
            self._open.get((table, key), {"seen": []})["seen"].append({"t": t, "value": fields["value"]})
        else:
            self._open.pop((table, key), {}).update({"outcome": "ended", **fields, "ended": t})

    def _of_scenario(self, phase: str, t: float, fields: dict[str, Any]) -> None:
        if phase == "planned":
            nothing = {"outcome": "not_run", "started": None, "seconds": None, "error": None}
            steps = [{**step, **nothing} for step in fields["steps"]]
            times = {"started": None, "ended": None, "outcome": "not_run", "reason": "not reached"}
            self._open["scenarios", fields["id"]] = {**fields, "steps": steps, **times}
            self.run["scenarios"].append(self._open["scenarios", fields["id"]])
            return
        scenario = self._open.get(("scenarios", fields["id"]), {})
        if phase == "started":
            scenario.update(started=t, outcome="interrupted", reason="the run ended before it did")
        else:
            scenario.update(fields, ended=t)

    def _of_step(self, phase: str, t: float, fields: dict[str, Any]) -> None:
        steps = self._open.get(("scenarios", fields["id"]), {}).get("steps", [])
        step = steps[fields["index"]] if fields["index"] < len(steps) else {}
        if phase == "started":
            step.update(started=t, outcome="interrupted")
        else:
            step.update(outcome=fields["outcome"], seconds=fields.get("seconds"), error=fields.get("error"))


def lasted(item: dict[str, Any], run: dict[str, Any]) -> float | None:
    """Seconds that a stage, task, scenario, ... of the document took; to the last event, where it never ended."""
    if item.get("seconds") is not None:
        return float(item["seconds"])
    if item.get("started") is None:
        return None
    ended = item.get("ended") or run.get("last_event") or item["started"]
    return max(float(ended) - float(item["started"]), 0.0)
