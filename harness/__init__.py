"""How the runbook is executed and judged: small drivers over three seams (process, HTTP, SSH), and one record."""

# Package -> which others it may import. `errors`, `files` and `text` are for all; `cli` knows the commands.
PACKAGES: dict[str, tuple[str, ...]] = {
    "model": (),
    "record": (),
    "seams": ("record",),
    "drivers": ("model", "seams", "record"),
    "snapshot": ("model", "seams", "record", "drivers"),
    "rules": ("model", "snapshot"),
    "setup": ("seams", "record"),
    "reports": ("record", "model", "snapshot"),
    "runs": ("model", "record", "seams", "drivers", "snapshot", "rules", "setup", "reports"),
    "commands": ("model", "record", "seams", "drivers", "snapshot", "rules", "setup", "reports", "runs"),
}
