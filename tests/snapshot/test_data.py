"""Snapshots as documents: what is written is read again, and no other is."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from harness.snapshot import data
from harness.snapshot.data import SCHEMA, Container, EtcdHere, decode, encode
from tests.transcripts.snapshots import changed, green, silent

SCHEMA_FILE = Path(data.__file__).with_name("schema.json")


def test_a_snapshot_is_read_as_it_was_written() -> None:
    assert decode(encode(green())) == green()


def test_what_is_missing_is_read_as_missing() -> None:
    broken = changed(
        silent(green(), "coreos-2"),
        {
            "fleet": None,
            "services": None,
            "deployed": None,
            "plan": None,
            "outside.ports": None,
            "outside.names": None,
            "outside.walks": None,
            "machines.coreos-0.containers": None,
            "machines.coreos-0.etcd": None,
            "machines.coreos-0.fleet": None,
            "machines.coreos-0.missing": ("etcd",),
            "machines.coreos-1.containers.blog": Container("1", "exited", {80: ("192.0.2.11:1",)}, 137, True, "now"),
            "machines.coreos-1.etcd": EtcdHere(False, "", "", "", ()),
        },
    )
    assert decode(encode(broken)) == broken


def test_nothing_that_is_empty_becomes_none() -> None:
    empty = changed(green(), {"services": {}, "deployed": {}, "plan": (), "machines.coreos-0.containers": {}})

    assert decode(encode(empty)) == empty


def test_a_document_says_its_schema() -> None:
    assert json.loads(encode(green()))["schema"] == SCHEMA


@pytest.mark.parametrize("schema", ["platform.snapshot/0", "platform.snapshot/2", "", None, 1])
def test_a_document_of_another_schema_is_refused(schema: object) -> None:
    document = json.loads(encode(green()))

    with pytest.raises(ValueError, match=r"schema"):
        decode(json.dumps({**document, "schema": schema}).encode())


def test_a_document_of_another_schema_is_refused_as_that() -> None:
    with pytest.raises(ValueError, match=f"a snapshot of schema other/1, not {SCHEMA}"):
        decode(b'{"schema": "other/1"}')
    with pytest.raises(ValueError, match=f"a snapshot of schema unknown, not {SCHEMA}"):
        decode(b'{"number": 1}')


@pytest.mark.parametrize("document", [b"", b"[]", b"null", b'{"schema": "platform.snapshot/1"}', b"{" * 99, b"\xff"])
def test_what_is_no_snapshot_is_refused(document: bytes) -> None:
    with pytest.raises(ValueError):
        decode(document)


def test_a_value_of_another_type_is_refused() -> None:
    document = json.loads(encode(green()))
    document["machines"]["coreos-0"]["units"]["etcd.service"]["main_pid"] = "104"

    with pytest.raises(msgspec.ValidationError, match=r"main_pid|int"):
        decode(json.dumps(document).encode())


def test_schema_in_the_repository_is_that_of_the_code() -> None:
    again = "python -m harness.snapshot.data > harness/snapshot/schema.json"

    assert json.loads(SCHEMA_FILE.read_text()) == json.loads(json.dumps(data.schema())), again
    assert again in (data.__doc__ or "")


def test_schema_names_every_part() -> None:
    schema = json.loads(SCHEMA_FILE.read_text())
    snapshot = schema["$defs"]["Snapshot"]

    assert snapshot["properties"]["schema"] == {"enum": [SCHEMA]}
    assert set(json.loads(encode(green()))) <= set(snapshot["properties"])
    assert "schema" in snapshot["required"]


def test_a_snapshot_is_small() -> None:
    assert len(encode(green())) < 200_000


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("plan", "Terraform's plan"),
        ("outside.walks", "the sites, link by link"),
        ("outside.ports", "ports"),
        ("outside.kernel", "the kernel's log"),
    ],
)
def test_what_nobody_could_tell_is_named_and_whether_somebody_asked(part: str, name: str) -> None:
    assert green().unseen == [] == green().unanswered

    silent, unasked = (changed(green(), {part: None, "unasked": asked}) for asked in ((), (part.split(".")[-1],)))
    assert (silent.unseen, silent.unanswered) == ([f"{name} (asked, no answer)"], [part.split(".")[-1]])
    assert (unasked.unseen, unasked.unanswered) == ([f"{name} (not asked)"], [])


def test_names_are_not_missed_where_nobody_is_asked_for_them() -> None:
    assert changed(green(), {"outside.names": None, "unasked": ("names",)}).unseen == []
    assert changed(green(), {"outside.names": None}).unseen == ["the sites' names (asked, no answer)"]


def test_who_may_not_read_the_kernels_log_is_told_what_gives_the_right() -> None:
    refused = {"outside.kernel": None, "outside.kernel_refused": "`sudo this`", "unasked": ("kernel",)}

    assert changed(green(), refused).unseen == ["the kernel's log (not asked: `sudo this`)"]
