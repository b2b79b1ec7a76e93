"""What must hold, as pure functions from snapshots to findings; nothing here asks anybody."""
