"""What the whole cluster is at one moment: looked at once, by one command a machine, and not judged."""
