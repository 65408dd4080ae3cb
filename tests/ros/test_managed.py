"""Transitions that fail: what they leave behind, what is logged, and what others are told."""

import os
from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

import rclpy
from rclpy.parameter import Parameter
from support.ros_client import Client, ros_client  # noqa: F401 - its import mends the wheels' warnings

from controllers.nodes.managed import ManagedNode
from controllers.nodes.profile import VARIABLE, profile_path
from controllers.sinks import Level
from hardware.clock import MonotonicClock
from hardware.errors import BadInput, RoboError

pytestmark = pytest.mark.ros


class Fragile(ManagedNode):
    """Fails as it is told to."""

    def __init__(self, context: rclpy.Context) -> None:
        super().__init__("fragile", context, MonotonicClock())
        self.trouble: Exception | None = None
        self.made_safe = 0
        self.told: list[tuple[Level, str]] = []

    def configure(self) -> None:
        if self.trouble:
            raise self.trouble

    def activate(self) -> None:
        if self.trouble:
            raise self.trouble

    def make_safe(self) -> None:
        self.made_safe += 1

    def diagnose(self, level: Level, text: str, values: dict[str, str]) -> None:
        self.told.append((level, text))
        super().diagnose(level, text, values)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fragile]:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv(VARIABLE, str(profile_path()))
    context = rclpy.Context()
    rclpy.init(context=context)
    made = Fragile(context)
    yield made
    made.destroy_node()
    rclpy.try_shutdown(context=context)


def test_a_refused_transition_changes_nothing_and_says_why(node: Fragile) -> None:
    node.trouble = BadInput("no such thing")
    node.trigger_configure()
    assert node.state_label == "unconfigured"
    assert node.failure == "no such thing"
    assert ("error", "cannot configure: no such thing") in node.told
    assert node.made_safe == 0
    node.trouble = None
    node.trigger_configure()
    assert (node.state_label, node.failure) == ("inactive", "")


def test_an_unforeseen_error_is_logged_and_makes_safe(node: Fragile, capfd: pytest.CaptureFixture[str]) -> None:
    node.trigger_configure()
    node.trouble = ZeroDivisionError("deep inside")
    node.trigger_activate()
    assert node.made_safe == 1
    assert node.state_label == "unconfigured"
    assert node.failure == "ZeroDivisionError: deep inside"
    assert ("error", "activate failed: ZeroDivisionError: deep inside") in node.told
    error = capfd.readouterr().err
    assert "Traceback" in error
    assert "raise self.trouble" in error


def test_parameters_have_bounds_and_stay_as_they_are(node: Fragile) -> None:
    assert node.declare("gain", 2.0, "A gain.", low=1.0, high=3.0) == 2.0
    refused = node.set_parameters([Parameter("gain", value=2.5)])[0]
    assert not refused.successful
    with pytest.raises(RoboError, match=r"parameter other: .*expected 1\.\.3"):
        node.declare("other", 4.0, "Out of bounds.", low=1.0, high=3.0)
