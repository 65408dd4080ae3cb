"""The doctor: what it says about this machine, and that each broken thing it knows of is found and mended by name."""

import dataclasses
import json
import mmap
import os
import socket
import subprocess
import sys
from importlib import metadata, util
from pathlib import Path
from typing import Any

import pytest

import hardware.spec
from robo_rl.doctor import check, machine, packages, ros


def doctor(folder: Path, **environment: str) -> tuple[int, dict[str, dict[str, Any]], str]:
    """Status, checks by name, and what was written to stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "robo_rl", "doctor", "--json", "checks.json"],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return done.returncode, {c["name"]: c for c in json.loads((folder / "checks.json").read_text())}, done.stderr


def test_the_core_works_here_and_every_failure_says_how_to_mend_it(tmp_path: Path) -> None:
    status, checks, errors = doctor(tmp_path)
    assert status == 0, errors
    assert all(c["ok"] for c in checks.values() if c["core"])
    assert all(c["mend"] for c in checks.values() if not c["ok"])
    assert all("\n" not in c["mend"] + c["detail"] and c["detail"] for c in checks.values())
    assert {"python", "core packages", "extra [train]", "torch", "rclpy", "one ROS 2", "OpenGL egl"} <= set(checks)


@pytest.mark.skipif(util.find_spec("rclpy") is None, reason="needs the ROS 2 wheels that are to be mixed up")
def test_a_sourced_second_ros_is_refused(tmp_path: Path) -> None:
    """An apt installation, as its environment variables and its index show it."""
    marker = tmp_path / "jazzy" / "share" / "ament_index" / "resource_index" / "packages" / "rmw_implementation"
    marker.parent.mkdir(parents=True)
    marker.write_text("")
    status, checks, errors = doctor(tmp_path, AMENT_PREFIX_PATH=str(tmp_path / "jazzy"), ROS_DISTRO="jazzy")
    assert status == 1
    assert not checks["one ROS 2"]["ok"]
    assert str(tmp_path / "jazzy") in checks["one ROS 2"]["detail"]
    assert "sources no setup.bash" in checks["one ROS 2"]["mend"]
    assert "ROS_DISTRO=jazzy" in checks["rclpy"]["detail"]
    assert errors == "robo-rl: doctor: the core does not work: one ROS 2\n"


@pytest.mark.parametrize(
    ("variable", "value", "probe", "detail"),
    [
        ("AMENT_PREFIX_PATH", "/no/such/prefix", ros.ament_prefix, "names folders that do not exist"),
        ("FASTDDS_DEFAULT_PROFILES_FILE", "/no/such/file.xml", ros.profile, "names no file: /no/such/file.xml"),
        ("ROS_DOMAIN_ID", "120", ros.ports, "inside the kernel's"),
        ("ROS_DOMAIN_ID", "five", ros.ports, "is not a number from 0 to 232"),
        ("ROS_DOMAIN_ID", "233", ros.ports, "is not a number from 0 to 232"),
    ],
)
def test_a_wrong_variable_is_found(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, probe: Any, detail: str
) -> None:
    monkeypatch.setenv(variable, value)
    found = probe()
    assert not found.ok
    assert detail in found.detail
    assert variable in found.mend


def test_dds_ports_of_domain_101_are_the_last_below_the_kernel_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Published: domains 0 to 101 are safe with Linux's default range of 32768 to 60999."""
    monkeypatch.setattr(ros.Path, "is_file", lambda self: False)
    for domain, ok in ((0, True), (101, True), (102, False), (214, False), (215, True)):
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        assert ros.ports().ok is ok, domain


def test_segments_of_dead_processes_are_found_and_live_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ros, "_SHM", tmp_path)
    assert ros.shared_memory().ok
    used = tmp_path / "fastdds_used"
    used.write_bytes(bytes(4096))
    with used.open("r+b") as file, mmap.mmap(file.fileno(), 4096):
        assert ros.shared_memory().detail == "1 segments in use"
        (tmp_path / "fastdds_dead").write_bytes(bytes(1_500_000))
        found = ros.shared_memory()
    assert not found.ok
    assert found.detail == "1 segments without a process, 1.5 MB"
    assert "once no ROS 2 program runs: rm -f" in found.mend


def test_missing_and_old_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["no-such-package>=1", "numpy>=999", "scipy; extra == 'train'", "also-missing; extra == 'train'"]
    monkeypatch.setattr(metadata, "requires", lambda name: lines)
    core, train = packages.core(), packages.extra("train")
    assert not core.ok
    assert core.detail == f"missing: no-such-package, numpy>=999 (there is {metadata.version('numpy')})"
    assert train.detail == "missing: also-missing"
    assert "pip install" in core.mend
    assert "[train]" in train.mend


def test_versions_other_than_the_tested_ones_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "constraints.txt").write_text("numpy==0.0.1  # old\n# scipy==0\n")
    monkeypatch.setattr(packages, "repository", lambda: tmp_path)
    found = packages.constraints()
    assert not found.ok
    assert found.detail == f"numpy {metadata.version('numpy')} (tested: 0.0.1)"


def test_a_port_in_use_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = hardware.spec.load_spec("crazyflie")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        address = f"udp://127.0.0.1:{s.getsockname()[1]}"
        monkeypatch.setattr(hardware.spec, "load_spec", lambda name: dataclasses.replace(spec, address=address))
        taken = machine.robot_ports()
    assert not taken.ok
    assert address in taken.detail
    assert machine.robot_ports().ok


def test_a_probe_survives_what_it_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check.probe("print('a'); print('b')") == (True, "b")
    assert check.probe("raise ValueError('bad driver')") == (False, "ValueError: bad driver")
    assert check.probe("import os; os.kill(os.getpid(), 9)") == (False, "ended by signal 9")
    monkeypatch.setattr(check, "PROBE_TIMEOUT_S", 0.5)
    assert check.probe("import time; time.sleep(100)") == (False, "no answer within 0 s")
