"""What the commands have in common that an operator types in the runbook's folder: bin/deploy-blog, bin/etcd-backup."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness.drivers.cluster import Cluster, Connections
from harness.drivers.terraform import Terraform
from harness.errors import ExitStatus, HarnessError, Misconfigured
from harness.record.log import Recorder
from harness.seams.process import Processes
from harness.text import clean


def run(parser: argparse.ArgumentParser, argv: Sequence[str], do: Callable[[argparse.Namespace], str]) -> int:
    """Prints what `do` gives for the command line, or one line that says why not; exit status as in harness.errors."""
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as wrong:  # argparse has said why; its own status for that, 2, means "interrupted" here
        return ExitStatus.MISCONFIGURED if wrong.code else ExitStatus.VERIFIED
    try:
        said = do(arguments)
    except HarnessError as failed:
        print(clean(f"{parser.prog}: {failed}"), file=sys.stderr)
        return failed.status
    except KeyboardInterrupt as interrupted:
        print(clean("; ".join([f"{parser.prog}: interrupted", *map(str, interrupted.args)])), file=sys.stderr)
        return ExitStatus.INTERRUPTED
    print(clean(said))
    return ExitStatus.VERIFIED


@contextmanager
def cluster_here(name: str) -> Iterator[tuple[Cluster, Recorder]]:
    """The cluster that Terraform's outputs describe ($TARGET, default local), for a command of this name.

    Raises Misconfigured where this is not the runbook's folder, NothingApplied.
    """
    target = Path("infra") / os.environ.get("TARGET", "local")
    if not target.is_dir():
        raise Misconfigured(f"there is no {target} here: run this in the folder of the runbook")
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as scratch:
        recorder = Recorder(Path(scratch) / "events.jsonl")
        process = Processes(recorder)
        outputs = Terraform(process, target, os.environ).outputs()
        with Connections(recorder) as connections:
            yield Cluster(lambda: outputs, connections, process), recorder
