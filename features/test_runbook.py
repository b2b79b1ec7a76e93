"""Binds every feature, in the order of the file names. (pytest-bdd sorts by feature title when given a folder.)"""

from pathlib import Path

from pytest_bdd import scenarios

for feature in sorted(Path(__file__).parent.glob("*.feature")):
    scenarios(feature.name)
