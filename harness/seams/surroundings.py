"""What the caller's surroundings may set: the one place that says so. It needs nothing but Python.

A person's shell, or cron's, holds variables for other programs. Those that steer what the harness starts are taken out,
or fixed; the others (PATH, HOME, proxies and mirrors of package sources, agents, a target's own) stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# How a program steers itself by its environment
STEERS = re.compile(r"(PYTEST_|PYTHON|PIP_|TF_|LC_)\w*|LANG|LANGUAGE|BASH_ENV|CDPATH|GREP_OPTIONS")
# Of those, where packages come from, and what bin/platform gives to all that it starts
MAY = re.compile(
    r"PIP_(INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|TRUSTED_HOST|CERT|CLIENT_CERT|PROXY|CONFIG_FILE|CACHE_DIR"
    r"|NO_CACHE_DIR|DEFAULT_TIMEOUT|TIMEOUT|RETRIES|KEYRING_PROVIDER|DISABLE_PIP_VERSION_CHECK)"
    r"|PYTHON(PATH|PYCACHEPREFIX|DONTWRITEBYTECODE|UTF8)"
)
# Fixed: what programs print is parsed, and is UTF-8
FIXED = {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"}
# Terraform's that change nothing of what is built
HARMLESS = re.compile(r"TF_(INPUT|IN_AUTOMATION|CLI_CONFIG_FILE|PLUGIN_CACHE_DIR|LOG\w*)")
# As the operator's shell has it
OPERATORS = {"TF_CLI_ARGS": "-no-color"}


def cleaned(environment: Mapping[str, str], keep: Iterable[str] = ()) -> dict[str, str]:
    """The environment without what steers, but for the names that begin with a word of `keep`."""
    kept = tuple(keep)
    stays = {
        name: value
        for name, value in environment.items()
        if not STEERS.fullmatch(name) or MAY.fullmatch(name) or name.startswith(kept)
    }
    return stays | FIXED


def not_obeyed(environment: Mapping[str, str]) -> str:
    """What a person may believe that a run obeys, and it does not, in one line; nothing where there is none."""
    names = sorted(
        name
        for name, value in environment.items()
        if name.startswith("TF_") and value and not HARMLESS.fullmatch(name) and OPERATORS.get(name) != value
    )
    if not names:
        return ""
    verb = "is" if len(names) == 1 else "are"
    return f"{', '.join(names)} {verb} set and not obeyed: a run's variables stand in terraform.tfvars"
