"""What runs on a robot imports neither torch nor a simulator, and the direct transport no ROS, in fresh processes."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "mujoco", "pybullet", "gymnasium", "onnx", "matplotlib")


def modules_after(code: str) -> set[str]:
    script = f"import sys, json\n{code}\nprint(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("module", ["controllers.policy", "controllers.loop", "controllers.parity"])
def test_the_robot_side_is_light(module: str) -> None:
    loaded = modules_after(f"import {module}")
    assert loaded & set(HEAVY) == set()
    assert "rclpy" not in loaded


@pytest.mark.parametrize("module", ["robo_rl.commands.deploy", "robo_rl.commands.inspect", "robo_rl.deployment.direct"])
def test_deploying_directly_needs_neither_ros_nor_torch(module: str) -> None:
    assert modules_after(f"import {module}") & {*HEAVY, "rclpy", "rosidl_runtime_py"} == set()


def test_the_help_of_deploy_loads_no_graph_runtime() -> None:
    assert "onnxruntime" not in modules_after("import robo_rl.commands.deploy, robo_rl.commands.replay")
