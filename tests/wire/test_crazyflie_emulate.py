"""`robo-rl emulate crazyflie`: what it prints, how it ends, and what it says when it cannot start."""

import json
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from support.emulator_process import emulated, served

from hardware.robots.crazyflie.driver import Driver
from hardware.robots.crazyflie.faults import FAULTS
from robo_rl.cli import main


def test_two_free_ports_are_served_and_sigterm_ends_it_well() -> None:
    with emulated("crazyflie", "--num", "2") as addresses:
        assert len(set(addresses)) == 2
        drone = Driver(addresses[1])
        drone.open()
        assert drone.read().signals["position_world"][1] == pytest.approx(0.25, abs=0.02)
        drone.close()


def test_a_duration_ends_it_and_the_result_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = tmp_path / "result.json"
    arguments = ["emulate", "crazyflie", "--port", "0", "--duration", "0.5", "--time-scale", "5", "--json", str(result)]
    assert main([*arguments, "--fault", "battery_low:0.1:3.0", "--fault", "motor_loss:0.2..0.3"]) == 0
    out = capsys.readouterr().out
    address = re.search(r"crazyflie 1 of 1 at (udp://127\.0\.0\.1:\d+)", out)
    assert address is not None
    got = json.loads(result.read_text())
    assert got["addresses"] == [address[1]]
    assert got["emulated_s"] == pytest.approx(0.5, abs=0.01)
    assert f'READY {{"robot": "crazyflie", "addresses": ["{address[1]}"]' in out


def test_a_port_in_use_is_one_line_and_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert main(["emulate", "crazyflie", "--port", str(port)]) == 1
    in_use = f"udp://127.0.0.1:{port} is in use by another process; choose another port, or 0 for a free one"
    assert capsys.readouterr().err == f"robo-rl: emulate: {in_use}\n"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["dragonfly"], 1, "robot 'dragonfly' not found; known: crazyflie"),
        (["crazyflie", "--fault", "hail"], 1, "fault of robot crazyflie 'hail' not found; known: battery_low, delay"),
        (["crazyflie", "--fault", "delay:soon"], 1, "fault 'delay:soon' is not of the form name[:at_s[:value]]"),
        (["crazyflie", "--num", "0"], 1, "0 drones given; expected at least 1"),
        (["crazyflie", "--port", "70000"], 1, "udp://127.0.0.1:70000 cannot be served"),
        (["crazyflie", "--time-scale", "0"], 1, "time scale 0.0; expected a number above 0"),
        (["crazyflie", "--duration", "-1"], 1, "duration -1.0; expected seconds above 0"),
        (["crazyflie", "--host", "no.such.host.invalid"], 1, "cannot be served"),
        (["crazyflie", "--scene", "no/such"], 1, "scene 'no/such' not found; known: greenhouse/lettuce, "),
        (["crazyflie", "--prot", "0"], 2, "--prot"),
        (
            ["crazyflie", "--mocap", "--mocap-rate", "1000"],
            1,
            "motion capture at 1000.0 Hz; expected above 0 and at most",
        ),
        (
            ["crazyflie", "--mocap", "--mocap-dropout", "2"],
            1,
            "motion capture drops out in 2.0 of the frames; expected",
        ),
        (["crazyflie", "--mocap", "--mocap-noise", "-1"], 1, "motion capture noise of -1.0 m; expected"),
        (["crazyflie", "--mocap-dropout", "0.1"], 1, "rate, dropout, noise or port of motion capture given without"),
        (["crazyflie", "--airframe", "kite"], 1, "airframe of robot crazyflie 'kite' not found; known: cf21"),
        (
            ["crazyflie", "--scene", "quadrotor/hover", "--airframe", "l2f"],
            1,
            "quadrotor/hover has no choice of airframes",
        ),
        (["crazyflie", "--scene", "quadrotor/swarm", "--airframe", "kite"], 1, "'kite' not found; known: cf21"),
        (["greenhouse_plc", "--mocap"], 1, "--mocap is for robot 'crazyflie', not 'greenhouse_plc'"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        got = main(["emulate", *arguments])
    except SystemExit as e:
        got = e.code
    err = capsys.readouterr().err
    assert got == status
    assert message in err
    assert err.count("\n") == 1


README = Path(__file__).parents[2] / "hardware" / "robots" / "crazyflie" / "README.md"


def test_the_commands_and_files_of_the_readme_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    commands = re.findall(r"```bash\nrobo-rl (.*?)\n```", README.read_text(), re.DOTALL)
    assert len(commands) == 3
    for command in commands:
        if "--onboard" not in command or shutil.which("gcc"):
            assert main([*command.split(), "--port", "0", "--duration", "0.1", "--time-scale", "5"]) == 0
    capsys.readouterr()
    (room,) = re.findall(r"```toml\n(.*?)```", README.read_text(), re.DOTALL)
    (tmp_path / "room.toml").write_text(room)
    assert (
        main(["emulate", "crazyflie", "--port", "0", "--duration", "0.1", "--obstacles", str(tmp_path / "room.toml")])
        == 0
    )
    (ready,) = re.findall(r"^READY (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert json.loads(ready)["obstacles"] == [[1.0, -0.5, 0.3], [2.5, 0.0, 0.3]]


def test_the_readme_tells_the_truth(capsys: pytest.CaptureFixture[str]) -> None:
    text = README.read_text()
    for name, kind in FAULTS.items():
        assert f"| `{name}` | `{kind.parameter}` |" in text
    files = set(re.findall(r"`(\w+\.(?:py|toml))`", text))
    assert files == {p.name for p in README.parent.iterdir() if p.suffix in (".py", ".toml")} - {"__init__.py"}
    snippets = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    with served("crazyflie", "--mocap") as ready:
        snippets = snippets.replace("udp://127.0.0.1:19850", ready["addresses"][0])
        names: dict[str, Any] = {}
        exec(compile(snippets.replace("udp://127.0.0.1:19840", ready["mocap"]), str(README), "exec"), names)
    assert capsys.readouterr().out.startswith("[")
    assert set(names["seen"]) == {1}
