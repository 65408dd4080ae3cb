"""For colcon, which calls this file; all but one entry is in pyproject.toml."""

from setuptools import setup

# colcon evaluates the printed set-up data as literals, and only here does this entry stay a string.
setup(python_requires=">=3.11")
