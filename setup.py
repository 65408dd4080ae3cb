"""For colcon, which calls this file; everything is in pyproject.toml."""

from setuptools import setup

setup()
