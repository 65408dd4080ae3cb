"""What a user gets: the wheel, installed alone in a fresh environment, without torch and without a simulator."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from support.pd_policy import write_pd_policy

from controllers.artifact import read_card

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("robo_rl", "sim", "controllers", "hardware")
OFFLINE = ("Failed to establish a new connection", "Temporary failure in name resolution", "Network is unreachable")

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("install"), pytest.mark.timeout(600)]


def run(*command: str | Path, cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs a program as a user's fresh shell would: nothing of this environment leaks in."""
    leaks = ("PYTHONPATH", "LD_LIBRARY_PATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE", "VIRTUAL_ENV")
    env = {k: v for k, v in os.environ.items() if k not in leaks} | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    if check and done.returncode:
        pytest.fail(
            f"{' '.join(map(str, command))} gave {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        )
    return done


def _files() -> list[Path]:
    """What a clone of the repository holds (as it lies here), relative to the root."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: which files belong to the source is not known")
    return [Path(name) for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source, so that building leaves nothing in the working tree."""
    copy = tmp_path_factory.mktemp("source") / "robo_rl"
    for name in _files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    """The wheel, made from the source distribution, as a release is."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", source / "dist", source)
    (made,) = (source / "dist").glob("*.whl")
    return made


@pytest.fixture(scope="module")
def plain(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a fresh environment that holds the plain install and nothing else."""
    home = tmp_path_factory.mktemp("plain") / "venv"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    done = run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel, check=False)
    if any(sign in done.stderr for sign in OFFLINE):
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    return home / "bin"


def test_wheel_holds_every_file_of_every_package(wheel: Path) -> None:
    """Nothing that lies in a package in the repository is missing in what is shipped, and no test is in it."""
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {str(p) for p in _files() if p.parts[0] in PACKAGES}
    assert not expected - names
    assert {n.split("/")[0] for n in names if n.endswith(".py")} == set(PACKAGES)
    shared = {n.split("/data/")[1] for n in names if "/data/" in n}
    launch_files = {
        f"share/robo_rl/launch/{p.name}" for p in _files() if p.parts[0] == "launch" and p.suffix == ".yaml"
    }
    assert shared >= {"share/ament_index/resource_index/packages/robo_rl", "share/robo_rl/package.xml"} | launch_files


def test_metadata_is_valid(wheel: Path) -> None:
    """By the validator that the package index uses."""
    archive = zipfile.ZipFile(wheel)
    (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
    metadata = Metadata.from_email(archive.read(name), validate=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (metadata.name, str(metadata.version)) == (project["name"], project["version"])
    assert str(metadata.requires_python) == ">=3.11"
    assert metadata.license_expression == "Apache-2.0"
    assert metadata.description_content_type == "text/markdown"
    assert set(metadata.provides_extra or ()) == set(project["optional-dependencies"])


def test_colcon_gets_its_layout(source: Path, tmp_path: Path) -> None:
    """The two steps of colcon's ament_python task: set-up data as literals, and an install with programs in lib/."""
    literal = (
        "import ast, distutils.core as d; "
        "s = d.run_setup('setup.py', script_args=['--dry-run'], stop_after='config'); "
        "ast.literal_eval(repr({k: v for k, v in vars(s).items() if k in "
        "('python_requires', 'install_requires', 'extras_require', 'entry_points', 'packages', 'data_files')}))"
    )
    run(sys.executable, "-W", "ignore", "-c", f"import setuptools; {literal}", cwd=source)
    install = ["install", "--prefix", tmp_path, "--record", tmp_path / "record", "--single-version-externally-managed"]
    run(sys.executable, "-W", "ignore", "setup.py", "build", "--build-base", tmp_path / "build", *install, cwd=source)
    assert (tmp_path / "lib/robo_rl/robo-rl").is_file()
    assert (tmp_path / "share/ament_index/resource_index/packages/robo_rl").is_file()
    assert (tmp_path / "share/robo_rl/package.xml").is_file()
    assert {p.name for p in (tmp_path / "share/robo_rl/launch").glob("*")} >= {
        p.name for p in (source / "launch").glob("*.launch.yaml")
    }


def test_plain_install_has_neither_torch_nor_a_simulator(plain: Path) -> None:
    listed = json.loads(run(plain / "python", "-m", "pip", "list", "--format", "json").stdout)
    names = {entry["name"].lower().replace("_", "-") for entry in listed}
    assert {"robo-rl", "numpy", "onnxruntime", "mcap"} <= names
    heavy = {"torch", "mujoco", "pybullet", "gymnasium", "onnx", "onnxscript", "matplotlib", "cflib", "rclpy"}
    assert not names & heavy
    run(plain / "python", "-m", "pip", "check")


def test_plain_install_answers(plain: Path, tmp_path: Path) -> None:
    assert "usage: robo-rl" in run(plain / "robo-rl", "--help", cwd=tmp_path).stdout
    assert run(plain / "robo-rl", "--version", cwd=tmp_path).stdout.startswith("robo-rl 0.")
    run(plain / "robo-rl", "robots", "--json", tmp_path / "robots.json", cwd=tmp_path)
    assert "crazyflie" in [robot["name"] for robot in json.loads((tmp_path / "robots.json").read_text())]
    run(plain / "robo-rl", "doctor", cwd=tmp_path)
    train = run(plain / "robo-rl", "train", "quadrotor/hover", cwd=tmp_path, check=False)
    assert train.returncode == 1
    assert re.search(r"needs the package 'torch'; pip install 'robo_rl\[train\]'", train.stderr)


STORED = sorted((ROOT / "robo_rl/zoo").glob("quadrotor-*.onnx"))
ZOO = [p.stem for p in STORED if "world" not in read_card(p).evaluation]
"""All but those that were made for another drone than the emulator's."""


@pytest.mark.parametrize("policy", ["pd", *(f"zoo:{name}" for name in ZOO)])
def test_plain_install_flies_a_policy_on_an_emulated_robot(plain: Path, tmp_path: Path, policy: str) -> None:
    """Take-off, policy, landing over the real protocol, in real time; and the recording can be read."""
    given = str(write_pd_policy(tmp_path / "pd.onnx")) if policy == "pd" else policy
    flags = ["--transport", "direct", "--duration", "6", "--goal", "0.3,0,0.8", "--log", tmp_path / "log"]
    run(plain / "robo-rl", "deploy", given, *flags, "--json", tmp_path / "flight.json", cwd=tmp_path)
    flight = json.loads((tmp_path / "flight.json").read_text())
    assert flight["success"] is True
    assert flight["policy_ticks"] > 500
    run(plain / "robo-rl", "log", "info", tmp_path / "log", "--json", tmp_path / "info.json", cwd=tmp_path)
    assert json.loads((tmp_path / "info.json").read_text())["messages"] > 1000


def test_plain_install_runs_a_greenhouse(plain: Path, tmp_path: Path) -> None:
    """Four hours of plant time over Modbus at a thousand times real time, against the emulator's own world."""
    flags = ["--transport", "direct", "--time-scale", "1000", "--duration", "14400", "--log", tmp_path / "log"]
    run(plain / "robo-rl", "deploy", "zoo:greenhouse-lettuce", *flags, "--json", tmp_path / "run.json", cwd=tmp_path)
    found = json.loads((tmp_path / "run.json").read_text())
    assert found["success"] is True
    assert found["policy_ticks"] >= 8
