"""The Fast DDS profile that ships with the package; set before rclpy starts, unless the user has chosen one."""

import os
from importlib import resources
from pathlib import Path

VARIABLE = "FASTDDS_DEFAULT_PROFILES_FILE"


def profile_path() -> Path:
    """The shipped profile."""
    return Path(str(resources.files("controllers.nodes"))) / "fastdds.xml"


def use_shipped_profile() -> None:
    """Makes processes that start ROS 2 from now on, this one included, use the shipped profile."""
    os.environ.setdefault(VARIABLE, str(profile_path()))
