"""The runbook's words: one module per domain noun, each step one call of a driver and one judgement of its answer."""
