"""The shape of the repository: what must exist, what must not, and what may import what."""

import ast
import re
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml

from hardware.guard import GuardedRobot
from hardware.robots import connect

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("robo_rl", "sim", "controllers", "hardware")
SOURCES = sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))
LIGHT = {"importlib", "pathlib", "typing", "collections", "os", "functools"}
HEAVY = {
    "torch",
    "mujoco",
    "pybullet",
    "gymnasium",
    "onnx",
    "onnxruntime",
    "cv2",
    "matplotlib",
    "rclpy",
    "cflib",
    "scipy",
    "tyro",
    "rich",
}

PRINT_MODULES = "print(*sorted({m.split('.')[0] for m in sys.modules}))"


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def _imports(tree: ast.AST) -> set[str]:
    """Every module that is imported anywhere in a tree, by full name."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{a.name}" for a in node.names)
    return found


def _fresh(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    "path",
    [
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "CITATION.cff",
        "Makefile",
        ".ci/run",
        "constraints.txt",
        "package.xml",
        "setup.py",
        "setup.cfg",
        "resource/robo_rl",
        *(f"{p}/py.typed" for p in PACKAGES),
    ],
)
def test_file_exists(path: str) -> None:
    assert (ROOT / path).is_file()


def test_the_folder_launch_is_no_package() -> None:
    """An `__init__.py` or a conftest there would shadow ROS 2's own module `launch`."""
    assert not [p for p in (ROOT / "launch").rglob("*.py") if not p.name.endswith(".launch.py")]


def test_no_module_is_named_for_nothing() -> None:
    vague = re.compile(r"^(utils?|common|helpers?|managers?|misc)$")
    assert [_name(p) for p in SOURCES if vague.match(p.stem) or vague.match(p.parent.name)] == []


@pytest.mark.parametrize("init", [p for p in SOURCES if p.name == "__init__.py"], ids=_name)
def test_a_package_says_in_a_sentence_what_lives_there_and_imports_nothing_heavy(init: Path) -> None:
    tree = _tree(init)
    doc = ast.get_docstring(tree) or ""
    assert re.fullmatch(r"[A-Z].*\.", doc.split("\n\n")[0], re.DOTALL), f"{_name(init)}: docstring {doc!r}"
    top = {name.split(".")[0] for node in tree.body for name in _imports(node) if not isinstance(node, ast.FunctionDef)}
    assert not top & HEAVY, f"{_name(init)} imports {top & HEAVY} at import time"


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_source_file_is_readable_in_one_sitting(path: Path) -> None:
    """At most 400 lines, functions of at most 60, a docstring, no assert."""
    text, tree = path.read_text(), _tree(path)
    assert text.count("\n") <= 400
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 60, f"{_name(path)}:{node.lineno} {node.name} has {length} lines"
        assert not isinstance(node, ast.Assert), f"{_name(path)}:{node.lineno} asserts"


def test_help_imports_neither_torch_nor_a_simulator() -> None:
    done = _fresh(f"import sys; from robo_rl.cli import main; main(['--help']); {PRINT_MODULES}")
    assert done.returncode == 0, done.stderr
    assert "usage: robo-rl" in done.stdout
    assert not set(done.stdout.splitlines()[-1].split()) & HEAVY


@pytest.mark.parametrize("module", ["controllers.policy", "controllers.loop", "hardware.guard", "hardware.robots"])
def test_what_runs_on_the_robot_loads_neither_torch_nor_a_simulator(module: str) -> None:
    done = _fresh(f"import sys, {module}; {PRINT_MODULES}")
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout.split()) & {"torch", "mujoco", "pybullet", "gymnasium", "onnx", "rclpy", "cflib"}


def test_import_contracts_hold() -> None:
    """The staircase and the other contracts of pyproject.toml, by import-linter."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken", done.stdout)


def test_nobody_but_the_robots_folder_reaches_a_driver() -> None:
    """`hardware.robots.connect` hands robots out behind the guard; nothing else imports or makes a driver."""
    for path in SOURCES:
        if (ROOT / "hardware") in path.parents:
            continue
        tree = _tree(path)
        drivers = {m for m in _imports(tree) if re.match(r"hardware\.robots\.\w+\.driver\b", m)}
        assert not drivers, f"{_name(path)} imports {drivers}"
        made = [n.lineno for n in ast.walk(tree) if isinstance(n, ast.Call) and _called(n) == "Driver"]
        assert not made, f"{_name(path)}:{made} makes a driver"


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


@pytest.mark.parametrize("folder", sorted((ROOT / "hardware/robots").glob("*/spec.toml")), ids=lambda p: p.parent.name)
def test_a_robot_folder_has_its_files(folder: Path) -> None:
    missing = {"__init__.py", "wire.py", "driver.py", "emulator.py"} - {p.name for p in folder.parent.iterdir()}
    assert not missing


@pytest.mark.parametrize("folder", sorted((ROOT / "sim/scenes").glob("*/ranges.toml")), ids=lambda p: p.parent.name)
def test_a_scene_folder_has_its_files(folder: Path) -> None:
    missing = {"__init__.py", "scene.py", "README.md"} - {p.name for p in folder.parent.iterdir()}
    assert not missing


def test_one_version_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    package = ET.parse(ROOT / "package.xml").getroot()
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert project["name"] == package.findtext("name") == "robo_rl"
    assert project["version"] == package.findtext("version") == citation["version"]
    assert project["license"] == package.findtext("license") == citation["license"] == "Apache-2.0"
    assert re.search(rf"^## \[?{re.escape(project['version'])}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_licence_is_apache() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_constraints_pin_every_dependency() -> None:
    """Each direct dependency of what `make` installs has exactly one exact version, without a local suffix."""
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1] not in ("#", "")
    )
    pinned = {_normal(name) for name in pins}
    assert pins["torch"] == "2.13.0"
    assert not [v for v in pins.values() if "+" in v]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["train"], *extras["ros2"], *extras["crazyflie"], *extras["dev"]]
    names = {_normal(re.split(r"[\[<>=; ]", w)[0]) for w in wanted} - {"setuptools"}
    assert not names - pinned


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_everything_shipped_is_named_in_no_developers_machine() -> None:
    """No absolute path of somebody's home or workplace in what is shipped."""
    texts = [*SOURCES, *(p for p in ROOT.glob("*") if p.is_file()), *(ROOT / "docs").rglob("*.md")]
    texts += list((ROOT / "launch").glob("*.yaml"))
    found = [_name(p) for p in texts if p.suffix != ".png" and re.search(r"/(home|root|Users)/\w", p.read_text())]
    assert found == []


def test_connect_hands_out_a_guarded_robot_that_shows_no_bare_one() -> None:
    """Nothing reachable by a public name of what `connect` returns can write past the guard."""
    robot = connect("crazyflie", "udp://127.0.0.1:9")
    assert isinstance(robot, GuardedRobot)
    public = {name: getattr(robot, name) for name in dir(robot) if not name.startswith("_")}
    assert {name for name, value in public.items() if hasattr(value, "write")} == set()
