"""What the caller's surroundings may set, and what is taken out of them for every child process."""

from __future__ import annotations

import http.server
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from harness.record.log import Recorder
from harness.seams.process import Processes
from harness.seams.surroundings import cleaned, not_obeyed

STEERING = {
    "PYTEST_ADDOPTS": "--setup-plan",
    "PYTEST_PLUGINS": "x",
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "PYTHONHOME": "/nowhere",
    "PYTHONWARNINGS": "error",
    "PYTHONSTARTUP": "/x.py",
    "PYTHONIOENCODING": "latin-1",
    "PYTHONOPTIMIZE": "2",
    "PIP_TARGET": "/tmp/x",
    "PIP_USER": "1",
    "PIP_PREFIX": "/x",
    "TF_CLI_ARGS": "-lock-timeout=60s",
    "TF_CLI_ARGS_plan": "-destroy",
    "TF_VAR_machines": "1",
    "TF_WORKSPACE": "prod",
    "TF_DATA_DIR": "/x",
    "TF_LOG": "trace",
    "LANG": "de_DE",
    "LANGUAGE": "de",
    "LC_MESSAGES": "de_DE",
    "BASH_ENV": "/x.sh",
}
STAYING = {
    "PATH": os.environ["PATH"],
    "HOME": "/root",
    "http_proxy": "http://proxy:3128",
    "PIP_FIND_LINKS": "/wheels",
    "PIP_CERT": "/x.pem",
    "PLATFORM_CACHE": "/x",
    "TFENV": "1",
    "ENVIRONMENT": "1",
    "DOCKER_HOST": "unix:///x.sock",
}


@pytest.mark.parametrize("name", STEERING)
def test_what_steers_reaches_no_child_process(name: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, STEERING[name])

    assert name + "=" not in Processes(recorder).run(["env"]).stdout


@pytest.mark.parametrize("name", STAYING)
def test_what_others_need_stays(name: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, STAYING[name])

    assert f"{name}={STAYING[name]}\n" in Processes(recorder).run(["env"]).stdout


def test_what_a_command_is_given_is_given(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CLI_CONFIG_FILE", "/theirs")
    given = {"TF_CLI_CONFIG_FILE": os.devnull}

    assert f"TF_CLI_CONFIG_FILE={os.devnull}\n" in Processes(recorder).run(["env"], add_env=given).stdout


def test_a_fixed_output_is_in_one_language(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.ISO-8859-1")

    assert "LC_ALL=C.UTF-8\n" in Processes(recorder).run(["env"]).stdout


def test_utf_8_is_read_whatever_the_locale_is(recorder: Recorder) -> None:
    result = Processes(recorder).run(["cat"], stdin="größer …")

    assert result.stdout == "größer …"


def test_what_an_operator_typed_for_terraform_stays_for_their_commands() -> None:
    environment = {"TF_WORKSPACE": "prod", "TF_CLI_ARGS": "-no-color", "PYTEST_ADDOPTS": "x"}

    assert cleaned(environment, ("TF_",)).keys() == {"TF_WORKSPACE", "TF_CLI_ARGS", "LC_ALL", "PYTHONUTF8"}


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({}, ""),
        ({"TF_VAR_x": "1"}, "TF_VAR_x is set and not obeyed"),
        ({"TF_WORKSPACE": "prod", "TF_VAR_x": "1"}, "TF_VAR_x, TF_WORKSPACE are set and not obeyed"),
        ({"TF_CLI_ARGS_plan": "-destroy"}, "TF_CLI_ARGS_plan is set and not obeyed"),
        ({"TF_DATA_DIR": ""}, ""),
        # of the operator's shell
        ({"TF_CLI_ARGS": "-no-color", "TF_INPUT": "0", "TF_CLI_CONFIG_FILE": "/x", "TF_LOG": "info"}, ""),
    ],
    ids=str,
)
def test_what_is_not_obeyed_is_said_in_one_line(environment: dict[str, str], line: str) -> None:
    assert not_obeyed(environment).partition(":")[0] == line


# -- proxies -----------------------------------------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parent.parent.parent
# what asks the cluster itself; of first-boot, what does not ask the discovery service, which may be anybody's
ASKING = ("harness", "container", "infra")
OF_ANYBODY = "$DISCOVERY_URL"


def asking() -> list[Path]:
    listed = subprocess.run(["git", "grep", "-lw", "curl", "--", *ASKING], cwd=ROOT, capture_output=True, text=True)
    return [ROOT / name for name in listed.stdout.split() if not name.startswith("infra/toolchain")]


@pytest.mark.parametrize("file", asking(), ids=lambda file: file.name)
def test_what_is_asked_of_the_cluster_itself_never_goes_by_a_proxy(file: Path) -> None:
    text = file.read_text()
    calls = [line for line in text.splitlines() if re.search(r"""(^|[ "'(`])curl "?[-$]""", line)]
    # a line that a person pastes is theirs, and a socket of this machine knows no proxy
    own = [it for it in calls if not re.search(r"paste|rows\.append|return f|^ *#|--unix-socket|^ETCD|^FLEET", it)]
    around = "export no_proxy='*'" in text
    lacking = [line for line in own if not around and "--noproxy '*'" not in line and OF_ANYBODY not in line]

    # the options of this one stand on two lines
    assert [line for line in lacking if "--fail-early" not in line] == []


def test_a_healthy_etcd_is_seen_past_a_proxy(tmp_path: Path) -> None:
    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"health": "true"}')

        def log_message(self, *arguments: object) -> None:
            pass

    script = (ROOT / "harness/snapshot/collect.sh").read_text()
    if not shutil.which("curl"):
        pytest.fail("no program curl on PATH: set-up provides it, run `make test`")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        text = script.replace("127.0.0.1:2379", f"127.0.0.1:{server.server_port}")
        environment = {"PATH": os.environ["PATH"], "http_proxy": "http://192.0.2.1:3128", "HTTP_PROXY": "x"}
        argv = ["sh", "-c", text, "collect", "0", "", "", "127.0.0.1", "whole"]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, cwd=tmp_path)
        server.shutdown()

    assert '{"health": "true"}' in done.stdout
