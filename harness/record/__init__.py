"""The event log of a run, and the document that is folded from it."""
