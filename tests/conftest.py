"""What every test runs under: one thread, a fixed hypothesis profile, and groups of tests that must not run at once."""

import os

import pytest
from hypothesis import HealthCheck, settings

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # read by numpy and torch when a test module imports them

settings.register_profile(
    "robo_rl", deadline=None, print_blob=True, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("robo_rl")

SERIAL = ("ros", "ui")
"""Marks whose tests share something of the machine: under xdist, all tests of one mark run in the same worker."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives the tests of a serial mark one xdist group (see `--dist loadgroup` in the Makefile)."""
    for item in items:
        for name in SERIAL:
            if item.get_closest_marker(name) and not item.get_closest_marker("xdist_group"):
                item.add_marker(pytest.mark.xdist_group(name))
