"""What bin/platform and the operator's commands do."""
