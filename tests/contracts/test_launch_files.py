"""The shipped launch files: valid for ROS 2 launch, and starting exactly what they are meant to start."""

import io
import json
import os
import random
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import yaml

from hardware.errors import BadInput
from robo_rl import cli
from robo_rl.deployment.policy_node import node_arguments
from robo_rl.launch_engine import resolve
from robo_rl.launch_engine.parse import load
from robo_rl.launch_engine.resolve import Process
from robo_rl.launch_engine.substitutions import Context

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["annotate", "demo", "deploy", "emulate", "greenhouse", "identify", "record", "replay", "swarm", "train"]
LOG = "runs/deploy/flight_0"


def processes(name: str, /, **arguments: str) -> list[tuple[float, Process]]:
    description = load(ROOT / "launch" / f"{name}.launch.yaml")
    context = Context(arguments, {"PATH": os.environ["PATH"]}, description.file, _Zero())
    return [(t, e) for t, e in resolve.plan(description, context) if isinstance(e, Process)]


class _Zero(random.Random):
    """Makes `$(anon x)` the same in every run."""

    def getrandbits(self, k: int, /) -> int:
        return 0


def words(text: str) -> list[str]:
    return text.split()


TRAIN = "python3 -m robo_rl train {} --seed 0 --steps None --minutes {} --family train"
EMULATE = (
    "python3 -m robo_rl emulate crazyflie --port {} --num 1 --seed 0 --time-scale 1.0 --scene None --duration None"
)
ROBOT = "python3 -m controllers.nodes.robot_node --ros-args -r __ns:=/{} -p robot:=crazyflie -p uri:={}"
POLICY = (
    "python3 -m robo_rl.deployment.policy_node {} --goal={} --duration {} --ros-args -r __ns:=/{} "
    "-p recorder_wait_s:=10.0"
)
RECORD = "python3 -m robo_rl log record {} --linger 60 --regex /{}/.*|/diagnostics"
DIRECT = "python3 -m robo_rl deploy zoo:quadrotor-hover --robot crazyflie --mode {} --transport direct --uri {}"

SWARM = "python3 -m robo_rl deploy {} --robot crazyflie --num {} --uri udp://127.0.0.1:{} --transport direct"

GREENHOUSE = (
    "python3 -m robo_rl deploy zoo:greenhouse-lettuce --robot greenhouse_plc --mode emulated --transport direct "
    "--time-scale 1000.0 --scene None --duration 86400.0 --fault restart:3h:10m --fault dead_connection:100h:40m "
    "--fault stuck_vent:156h:3h --fault storm:204h:2h --log x --json None"
)

EXPECTED: list[tuple[str, dict[str, str], list[tuple[float, str, str]]]] = [
    (
        "train",
        {"scene": "a/b", "minutes": "1.5"},
        [(0.0, "train", TRAIN.format("a/b", "1.5") + " --eval-episodes 200 --out None --relaunch")],
    ),
    ("emulate", {}, [(0.0, "emulator", EMULATE.format(19850))]),
    ("emulate", {"port": "0", "fault": "link_drop:3"}, [(0.0, "emulator", EMULATE.format(0) + " --fault link_drop:3")]),
    (
        "greenhouse",
        {"scene": "None", "duration": "86400.0", "restart": "3h:10m", "log": "x"},
        [(0.0, "deploy", GREENHOUSE)],
    ),
    (
        "record",
        {"log": "x", "duration": "5"},
        [(0.0, "recorder", "python3 -m robo_rl log record x --regex .* --exclude /rosout --duration 5")],
    ),
    (
        "replay",
        {"log": "x"},
        [(0.0, "replay", "python3 -m robo_rl replay policy zoo:quadrotor-hover x --report None")],
    ),
    (
        "replay",
        {"log": "x", "through": "sim"},
        [(0.0, "replay", "python3 -m robo_rl replay sim quadrotor/hover x --report None")],
    ),
    (
        "replay",
        {"log": "x", "through": "topics", "rate": "2.0"},
        [(0.0, "player", "python3 -m robo_rl log play x --rate 2.0")],
    ),
    (
        "replay",
        {"log": "x", "through": "data", "data": "d", "report": "r.html"},
        [(0.0, "replay", "python3 -m robo_rl replay ope zoo:quadrotor-hover d --report r.html")],
    ),
    (
        "identify",
        {"log": "x"},
        [(0.0, "identify", "python3 -m robo_rl identify quadrotor/hover x --report identify.html --no-write")],
    ),
    (
        "annotate",
        {"log": "x", "subtasks": "reach,grasp", "browser": "no-browser"},
        [
            (
                0.0,
                "annotate",
                "python3 -m robo_rl annotate x --port 0 --author None --subtasks=reach,grasp --no-browser",
            )
        ],
    ),
    (
        "demo",
        {"transport": "direct"},
        [
            (
                0.0,
                "demo",
                "python3 -m robo_rl demo --seed 0 --steps None --episodes 1000 --duration 20.0 --transport direct "
                "--out None",
            )
        ],
    ),
    (
        "deploy",
        {"port": "5"},
        [
            (0.0, "emulator", "python3 -m robo_rl emulate crazyflie --port 5 --linger 60"),
            (0.0, "recorder", RECORD.format(LOG, "crazyflie")),
            (1.0, "robot_node", ROBOT.format("crazyflie", "udp://127.0.0.1:5")),
            (1.0, "policy_node", POLICY.format("zoo:quadrotor-hover", "0.0,0.0,1.0", "20.0", "crazyflie")),
        ],
    ),
    (
        "deploy",
        {"mode": "real", "uri": "radio://0/80", "name": "cf1", "policy": "p.onnx", "goal": "-1,0,2", "log": "d"},
        [
            (0.0, "recorder", RECORD.format("d", "cf1")),
            (1.0, "robot_node", ROBOT.format("cf1", "radio://0/80")),
            (1.0, "policy_node", POLICY.format("p.onnx", "-1,0,2", "20.0", "cf1")),
        ],
    ),
    (
        "deploy",
        {"transport": "direct"},
        [
            (
                0.0,
                "deploy",
                DIRECT.format("emulated", "None") + f" --name crazyflie --goal=0.0,0.0,1.0 --duration 20.0 --log {LOG}",
            )
        ],
    ),
    (
        "deploy",
        {"transport": "direct", "mode": "real", "uri": "radio://0/80"},
        [
            (
                0.0,
                "deploy",
                DIRECT.format("real", "radio://0/80")
                + f" --name crazyflie --goal=0.0,0.0,1.0 --duration 20.0 --log {LOG}",
            )
        ],
    ),
    (
        "swarm",
        {"num": "3", "dropout": "0.1", "log": "x"},
        [
            (
                0.0,
                "emulator",
                "python3 -m robo_rl emulate crazyflie --num 3 --port 19850 --linger 60 --obstacles None",
            ),
            (
                1.0,
                "deploy",
                SWARM.format("zoo:quadrotor-hover", 3, 19850)
                + " --formation circle --share-dropout 0.1 --obstacles None --on-fault one --duration 20.0 --log x",
            ),
        ],
    ),
    (
        "swarm",
        {"policy": "p.onnx", "onboard": "true", "port": "5", "formation": "swap", "obstacles": "o.toml", "log": "x"},
        [
            (
                0.0,
                "emulator",
                "python3 -m robo_rl emulate crazyflie --num 8 --port 5 --linger 60 --obstacles o.toml --onboard p.onnx "
                "--mocap --mocap-port 19840 --mocap-dropout 0.0",
            ),
            (
                1.0,
                "deploy",
                SWARM.format("p.onnx", 8, 5) + " --formation swap --onboard --on-fault one --duration 20.0 --log x",
            ),
        ],
    ),
    (
        "deploy",
        {"mode": "replay", "uri": "old", "log": "new"},
        [(0.0, "deploy", DIRECT.format("replay", "old") + " --name crazyflie --log new")],
    ),
]


@pytest.mark.parametrize(("name", "arguments", "expected"), EXPECTED, ids=lambda v: str(v)[:60].replace(" ", ""))
def test_starts_exactly_this(name: str, arguments: dict[str, str], expected: list[tuple[float, str, str]]) -> None:
    found = [(t, p.name, list(p.argv)) for t, p in processes(name, **arguments)]
    assert found == [(t, label, words(argv)) for t, label, argv in expected]


def test_every_shipped_file_has_an_expectation() -> None:
    assert sorted(p.name.removesuffix(".launch.yaml") for p in (ROOT / "launch").iterdir()) == NAMES
    assert {name for name, _, _ in EXPECTED} == set(NAMES)


def test_an_emulated_robot_stays_on_this_machine() -> None:
    """Only the emulated flight changes the environment, and only this variable."""
    for mode, extra in (("emulated", {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}), ("real", {})):
        for _, process in processes("deploy", mode=mode, uri="x"):
            assert dict(process.environment) == {"PATH": os.environ["PATH"], **extra}


def test_a_flight_ends_with_any_of_its_processes_and_nobody_is_hurried_on_the_way_down() -> None:
    found = {p.name: p for _, p in processes("deploy")}
    assert {n for n, p in found.items() if p.shutdown_on_exit} == {"emulator", "recorder", "robot_node", "policy_node"}
    assert all(p.sigterm_s == 60.0 for p in found.values())


@pytest.mark.parametrize("mode", ["real", "replay"])
def test_what_cannot_be_guessed_must_be_given(mode: str) -> None:
    with pytest.raises(BadInput, match="argument 'uri' is required"):
        processes("deploy", mode=mode)
    with pytest.raises(BadInput, match="argument 'log' is required"):
        processes("replay")


@pytest.mark.parametrize("name", NAMES)
def test_flags_that_the_files_use_exist(name: str) -> None:
    """Each `python -m robo_rl COMMAND --flag` against that command's own help."""
    for file, arguments, _ in EXPECTED:
        for _, process in processes(file, **arguments) if file == name else []:
            if process.argv[2] != "robo_rl":
                continue
            command = [process.argv[3], *([process.argv[4]] if process.argv[3] in ("log", "replay") else [])]
            out = io.StringIO()
            with redirect_stdout(out), pytest.raises(SystemExit):
                cli.main([*command, "--help"])
            flags = {w.partition("=")[0] for w in process.argv if re.match(r"--[a-z]", w)}
            assert flags <= set(re.findall(r"--[a-z][\w.\-]*", out.getvalue())), command


@pytest.mark.parametrize("name", NAMES)
def test_show_args_describes_every_argument(name: str, tmp_path: Path) -> None:
    with redirect_stdout(io.StringIO()) as out:
        assert cli.main(["launch", name, "--show-args", "--json", str(tmp_path / "a.json")]) == 0
    arguments = json.loads((tmp_path / "a.json").read_text())
    assert len(arguments) >= 4
    for a in arguments:
        assert a["description"].endswith("."), a
        assert a["description"] != "No description given."
        assert f"    {a['name']}\n" in out.getvalue()


# --- the rules of ROS 2 launch, written down once more without the engine -------------------------------------------

STRINGS = {"name", "value", "default", "description", "cmd", "output", "if", "unless", "on_exit", "file", "message"}
FLOATS = {"period", "sigterm_timeout"}
GENUINE_TAGS = {"arg", "let", "set_env", "executable", "group", "include", "timer", "log", "shutdown"}
SUBSTITUTIONS = {"var", "env", "dirname", "anon", "and", "or", "not"}


def check_genuine(actions: Any) -> None:
    assert isinstance(actions, list)
    for item in actions:
        ((tag, body),) = item.items()
        assert tag in GENUINE_TAGS
        assert not ("if" in body and "unless" in body)
        for key, value in body.items():
            if key == "children":
                check_genuine(value)
            elif key == "choice":
                assert all(list(row) == ["value"] and isinstance(row["value"], str) for row in value)
            elif key in FLOATS:
                assert type(value) is float
            else:
                assert key in STRINGS, key
                assert type(value) is str
                assert set(re.findall(r"\$\(([\w-]+)", value)) <= SUBSTITUTIONS
                assert "$" not in re.sub(r"\$\(", "", value)
                assert not set("\"'\\") & set(value) or key == "description"


@pytest.mark.parametrize("name", NAMES)
def test_files_keep_the_rules_of_ros_2_launch(name: str) -> None:
    root = yaml.safe_load((ROOT / "launch" / f"{name}.launch.yaml").read_text())
    assert list(root) == ["launch"]
    check_genuine(root["launch"])
    assert not list((ROOT / "launch").glob("*.py"))


# --- the node's front door ------------------------------------------------------------------------------------------


def test_policy_node_takes_policies_and_numbers_as_users_write_them(tmp_path: Path) -> None:
    (tmp_path / "policy.onnx").write_bytes(b"")
    found = node_arguments(
        [str(tmp_path), "--goal=-1,0,2", "--goal", "0,0,1.5", "--duration", "20", "--ros-args", "-r", "__ns:=/a"]
    )
    assert found == [
        "--ros-args",
        *("-p", f'policy:="{tmp_path}/policy.onnx"'),
        *("-p", "duration_s:=20.0"),
        *("-p", "exit_when_done:=true"),
        *("-p", "goal:=[-1.0, 0.0, 2.0, 0.0, 0.0, 1.5]"),
        *("-r", "__ns:=/a"),
    ]
    with pytest.raises(BadInput, match="--goal: 'x' is not a number"):
        node_arguments([str(tmp_path), "--goal", "x,0,0"])
    with pytest.raises(BadInput, match=r"policy nowhere\.onnx not found"):
        node_arguments(["nowhere.onnx"])
