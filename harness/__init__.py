"""How the runbook is executed and judged: small drivers over three seams (process, HTTP, SSH), and one record."""
