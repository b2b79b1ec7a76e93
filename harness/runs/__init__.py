"""The life of a run: its workplace, ground, features, evidence, verdict and end."""
