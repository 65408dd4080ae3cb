"""The exported firmware folder: what is in it, that it compiles, and that the controller hands on what it was given."""

import ctypes
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.onboard import Onboard, inputs_of, policy_file

from hardware.robots.crazyflie.obstacles import read_obstacles
from robo_rl import cli
from robo_rl.export_c.crazyflie import write_crazyflie
from robo_rl.export_c.report import CORTEX_M4, LIMITS, ONBOARD, beyond_limits, report

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
FIRMWARE = Path(__file__).resolve().parents[1] / "support/crazyflie_firmware"
WARNINGS = ("-O2", "-Wall", "-Wextra", "-Werror", "-Wdouble-promotion", "-ffp-contract=off", f"-I{FIRMWARE}")
LEGACY, FORCE = 0, 2
Single = NDArray[np.float32]


class Firmware:
    """The stand-in firmware with an exported controller in it."""

    def __init__(self, folder: Path) -> None:
        built = Path(tempfile.mkdtemp(dir=folder)) / "firmware.so"  # its own file: its own static memory
        sources = [folder / f"{name}.c" for name in ("controller", "observation", "onboard", "policy")]
        command = ["gcc", "-std=c99", *WARNINGS, "-shared", "-fPIC", *sources, FIRMWARE / "firmware.c", "-o", built]
        subprocess.run([str(c) for c in command], check=True, timeout=60)
        self.code = ctypes.CDLL(str(built))
        self.code.controllerOutOfTreeInit()

    def tell(self, place: int, ident: int, position: Single, stamp: int) -> None:
        """A peer's position arrives."""
        pointer = position.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        self.code.firmware_tell(place, ident, pointer, ctypes.c_uint32(stamp))

    def step(self, numbers: Single, os_ticks: int, step: int) -> tuple[int, Single]:
        """One call of the stabilizer loop: control mode and forces."""
        forces = np.full(4, np.nan, np.float32)
        pointers = [x.ctypes.data_as(ctypes.POINTER(ctypes.c_float)) for x in (numbers, forces)]
        mode = self.code.firmware_step(pointers[0], ctypes.c_uint32(os_ticks), ctypes.c_uint32(step), pointers[1])
        return mode, forces


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the firmware, of a policy that sees every source there is."""
    path = tmp_path_factory.mktemp("crazyflie")
    write_crazyflie(policy_file(path / "policy.onnx"), path)
    return path


def _numbers(rng: np.random.Generator, *, position_goal: bool = True) -> Single:
    """State, gyro in deg/s and goal in the firmware's order."""
    quat = rng.normal(size=4)
    values = [
        *rng.uniform(-3, 3, 3),
        *rng.uniform(-2, 2, 3),
        *(quat / np.linalg.norm(quat)),
        *rng.uniform(-300, 300, 3),
        *rng.uniform(-3, 3, 3),
        1.0 if position_goal else -1.0,
    ]
    return np.array(values, np.float32)


def test_controller_is_the_plain_interface_behind_the_firmwares_names(folder: Path, tmp_path: Path) -> None:
    """1,000 steps of 1 ms: degrees become radians, x y z w becomes w x y z, and a peer's age crosses the clocks."""
    firmware, rng = Firmware(folder), np.random.default_rng(1)
    onboard = Onboard(policy_file(tmp_path / "policy.onnx"), tmp_path)
    os_ahead = 123_456  # the operating system's clock runs on from the start, the loop's step counts its own
    peers: dict[int, tuple[int, Single]] = {}
    for step in range(1, 1001):
        x = _numbers(rng)
        for place in range(3):
            if rng.random() < 0.1:
                peers[place] = step, rng.uniform(-3, 3, 3).astype(np.float32)
                firmware.tell(place, place + 1, peers[place][1], step + os_ahead)
        state = {
            "position_world": x[0:3],
            "velocity_world": x[3:6],
            "quat_wxyz": x[[9, 6, 7, 8]],
            "angular_velocity_body": x[10:13] * np.float32(np.pi / 180.0),
            "battery_voltage": np.float32(3.75),
        }
        told = [(place + 1, stamp, at) for place, (stamp, at) in sorted(peers.items())]
        said, expected = onboard.step(inputs_of(state, x[13:16], step, told, np.zeros((0, 3), np.float32)))
        mode, forces = firmware.step(x, step + os_ahead, step)
        assert mode == FORCE
        assert said == (step % 10 == 1)
        np.testing.assert_array_equal(forces, expected)
    assert firmware.code.firmware_pid_calls() == 0


def test_whatever_is_no_position_goes_to_the_firmwares_own_controller(folder: Path) -> None:
    """And the policy that takes over again afterwards starts afresh."""
    firmware, rng = Firmware(folder), np.random.default_rng(2)
    x = _numbers(rng)
    first = firmware.step(x, 1, 1)[1]
    firmware.step(_numbers(rng), 11, 11)
    mode, _ = firmware.step(_numbers(rng, position_goal=False), 12, 12)
    assert mode == LEGACY
    assert firmware.code.firmware_pid_calls() == 1
    mode, again = firmware.step(x, 13, 13)
    assert mode == FORCE
    np.testing.assert_array_equal(again, first)


def test_nonsense_from_the_firmware_stops_the_motors(folder: Path) -> None:
    firmware, x = Firmware(folder), _numbers(np.random.default_rng(3))
    x[13] = np.nan
    mode, forces = firmware.step(x, 1, 1)
    assert mode == FORCE
    np.testing.assert_array_equal(forces, np.zeros(4))


def test_the_folder_builds_as_the_firmware_wants_it(folder: Path) -> None:
    """Every object of Kbuild has its source, the options that an out-of-tree controller needs are set."""
    objects = [line.split("+=")[1].strip() for line in (folder / "Kbuild").read_text().splitlines()]
    assert sorted(objects) == ["controller.o", "observation.o", "onboard.o", "policy.o"]
    assert all((folder / o).with_suffix(".c").is_file() for o in objects)
    assert {"CONFIG_APP_ENABLE=y", "CONFIG_CONTROLLER_OOT=y"} <= set((folder / "app-config").read_text().split())
    makefile = (folder / "Makefile").read_text()
    assert "OOT_CONFIG := $(PWD)/app-config" in makefile
    assert "include $(CRAZYFLIE_BASE)/tools/make/oot.mk" in makefile
    text = "".join(p.read_text() for p in folder.glob("*.[ch]"))
    assert "malloc" not in text


@pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="needs Debian's gcc-arm-none-eabi")
def test_the_controller_compiles_for_the_drone(folder: Path, tmp_path: Path) -> None:
    """As the firmware compiles it (GNU C11); its own frame and what it calls stay within the stack that is granted."""
    below = report(folder, ONBOARD)["cortex_m4"]["stack_bytes"]
    command = ["arm-none-eabi-gcc", "-std=gnu11", *WARNINGS, *CORTEX_M4, "-fstack-usage", "-c"]
    subprocess.run([*command, str(folder / "controller.c"), "-o", "c.o"], cwd=tmp_path, check=True, timeout=60)
    own = re.search(r":controllerOutOfTree\t(\d+)\t", (tmp_path / "c.su").read_text())
    assert own is not None
    assert int(own[1]) + below <= LIMITS["stack_bytes"]


@pytest.mark.skipif(
    not (shutil.which("arm-none-eabi-gcc") and shutil.which("qemu-system-arm")),
    reason="needs Debian's gcc-arm-none-eabi, libnewlib-arm-none-eabi and qemu-system-arm",
)
def test_command_writes_the_folder_within_the_drones_limits(tmp_path: Path) -> None:
    """The stored rotor policy: figures of the whole controller on the emulated processor, none beyond the limits."""
    out = tmp_path / "result.json"
    arguments = ["export", "zoo:quadrotor-hover-rotor", "--crazyflie", str(tmp_path / "app"), "--json", str(out)]
    assert cli.main(arguments) == 0
    found = json.loads(out.read_text())["crazyflie"]
    assert found["cortex_m4"]["same_bits"]
    assert found["beyond_limits"] == []
    assert found["period_ms"] == 10
    figures = found["cortex_m4"] | {"stack_bytes": 300, "longest_instructions": 1_000_000}
    assert beyond_limits(figures) == [
        f"stack_bytes 300 (limit {LIMITS['stack_bytes']})",
        f"longest_instructions 1,000,000 (limit {LIMITS['longest_instructions']:,})",
    ]


def test_an_export_leaves_your_obstacles_alone_unless_it_is_given_some(tmp_path: Path) -> None:
    artifact = policy_file(tmp_path / "policy.onnx")
    write_crazyflie(artifact, tmp_path)
    (tmp_path / "obstacles.h").write_text("/* mine */")
    (tmp_path / "controller.c").write_text("")
    write_crazyflie(artifact, tmp_path)
    assert (tmp_path / "obstacles.h").read_text() == "/* mine */"
    assert "controllerOutOfTree(" in (tmp_path / "controller.c").read_text()
    (tmp_path / "room.toml").write_text("centres_m = [[1.0, -2.0], [0.5, 0.5]]\nradius_m = 0.25")
    write_crazyflie(artifact, tmp_path, read_obstacles(tmp_path / "room.toml"))
    text = (tmp_path / "obstacles.h").read_text()
    assert "#define NUM_OBSTACLES 2" in text
    assert "{0x1p+0f, -0x1p+1f, 0x1p-2f}, /* 1, -2, 0.25 */" in text
    Firmware(tmp_path)


def test_obstacles_without_a_controller_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["export", "zoo:quadrotor-hover-rotor", "--c", str(tmp_path / "c"), "--obstacles", "room.toml"]
    assert cli.main(arguments) != 0
    assert "--obstacles belongs to --crazyflie DIR" in capsys.readouterr().err


def test_a_policy_of_set_points_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "zoo:quadrotor-hover", "--crazyflie", str(tmp_path / "app")]) != 0
    assert "mode attitude_thrust does not fly on board; expected mode rotor_thrust" in capsys.readouterr().err
    assert not (tmp_path / "app").exists()
