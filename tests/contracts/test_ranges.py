"""`ranges.toml` files that are wrong say where; the commands that list scenes and ranges."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hardware.errors import BadInput
from sim.ranges import read_ranges
from sim.registry import ranges_path

GOOD = """
[scene.task]
summary = "do it"
robot = "crazyflie"

[param.mass]
nominal = 0.029
unit = "kg"
low = 0.85
high = 1.15
how = "scale"
source = "guess"
reference = "a scale"
"""


def read(tmp_path: Path, text: str) -> object:
    path = tmp_path / "ranges.toml"
    path.write_text(text)
    return read_ranges(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("low = 0.85\n", "", r"\[param.mass\] lacks low"),
        ("low = 0.85\n", "low = 0.85\nlwo = 1\n", r"\[param.mass\] does not know lwo"),
        ("low = 0.85", 'low = "much"', r"low = 'much' is not a number"),
        ("low = 0.85", "low = nan", r"low = nan is not a number"),
        ("low = 0.85", "low = true", r"low = True is not a number"),
        ("low = 0.85", "low = 1.2", r"needs minimum <= low <= high <= maximum; got -inf, 1.2, 1.15, inf"),
        ("low = 0.85", "low = 0.85\nminimum = 0.9", r"needs minimum <= low"),
        ('"scale"', '"times"', r"how = 'times'; expected one of scale, add, set"),
        ('"guess"', '"hearsay"', r"source = 'hearsay'; expected one of identified, datasheet, guess"),
        ('"a scale"', '""', r"reference = '' is not a text"),
        ("[param.mass]", "[prm.mass]", r"expected tables \[scene.TASK\] and \[param.NAME\], found prm, scene"),
        ('robot = "crazyflie"\n', "", r"\[scene.task\] lacks robot"),
        ("nominal = 0.029", "nominal = ", "cannot be read as TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(BadInput, match=message) as caught:
        read(tmp_path, GOOD.replace(old, new))
    assert "ranges.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_digest_follows_numbers_and_not_words(tmp_path: Path) -> None:
    original = read(tmp_path, GOOD).digest()  # type: ignore[attr-defined]
    assert read(tmp_path, GOOD.replace("a scale", "another scale")).digest() == original  # type: ignore[attr-defined]
    assert read(tmp_path, GOOD.replace("1.15", "1.16")).digest() != original  # type: ignore[attr-defined]


def test_nominal_hover_world_is_the_emulators_default_airframe() -> None:
    from hardware.robots.crazyflie.plant import load_airframe

    a, p = load_airframe(), read_ranges(ranges_path("quadrotor/hover")).params
    inertia = tuple(p[f"inertia_{k}"].nominal for k in ("xx", "yy", "zz"))
    assert (p["mass"].nominal, inertia) == (a.mass_kg, a.inertia_kg_m2)
    assert (p["motor_tau_up"].nominal, p["motor_tau_down"].nominal) == (a.tau_up_s, a.tau_down_s)
    assert (p["torque_per_thrust"].nominal, p["thrust_curve"].nominal) == (a.torque_per_thrust_m, a.thrust_curve)
    assert (p["drag_xy"].nominal, p["drag_z"].nominal) == (a.drag_kg_s[0], a.drag_kg_s[2])
    assert p["thrust_to_weight"].nominal == pytest.approx(4 * a.thrust_max_n / (a.mass_kg * 9.81), abs=5e-4)


def command(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "robo_rl", *argv], capture_output=True, text=True, check=False)


def test_scenes_command_lists_without_importing_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from robo_rl.cli import main; status = main(['scenes', '--json', sys.argv[1]]); "
        "sys.exit(9 if {'torch', 'mujoco', 'gymnasium'} & set(sys.modules) else status)"
    )
    out = tmp_path / "scenes.json"
    done = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "quadrotor/hover (crazyflie): go to a point" in done.stdout
    assert "quadrotor/hover" in [row["name"] for row in json.loads(out.read_text())]


def test_ranges_command_lists_guesses_first(tmp_path: Path) -> None:
    out = tmp_path / "ranges.json"
    done = command("ranges", "quadrotor/hover", "--json", str(out))
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())
    sources = [row["source"] for row in rows]
    assert sources == sorted(sources, key=["guess", "datasheet", "identified"].index)
    assert {"name", "nominal", "unit", "low", "high", "how", "source", "reference"} <= rows[0].keys()
    assert f"{len(rows)} parameters, {sources.count('guess')} of them guesses" in done.stdout


def test_unknown_scene_is_one_line_that_lists_the_scenes() -> None:
    done = command("ranges", "quadrotor/hvr")
    assert done.returncode == 1
    known = "greenhouse/lettuce, quadrotor/hover, quadrotor/swarm"
    assert done.stderr.strip() == f"robo-rl: ranges: scene 'quadrotor/hvr' not found; known: {known}"
