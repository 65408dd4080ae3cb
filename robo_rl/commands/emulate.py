"""Serve emulated robots that speak the real protocol, until SIGINT or SIGTERM.

Prints where each robot is reached, then one line beginning with READY that carries the same as JSON. A fault is given
as name[:at_s[:value]], at_s may be a range such as 2..8 from which an instant is drawn; for the Crazyflie: packet_loss,
delay, link_drop, motor_loss, battery_low, gyro_nan, sensor_freeze, mocap_loss. For the greenhouse PLC it is
name[:at[:duration[:value]]], times in seconds or as 30m, 2h, 1d: restart, dead_connection, key_off, storm, delay,
stuck_vent, stuck_heat, stuck_co2, and drop_, freeze_, drift_ and spike_ with a sensor: temperature, humidity, co2
(drop_ and freeze_ also weather).
"""

import importlib
import json
import resource
import signal
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional, UseAppendAction

from controllers.realtime import real_time
from hardware.errors import BadInput, NotFoundError, RoboError
from hardware.spec import load_spec, robot_names
from robo_rl.cli import Outcome


@dataclass(frozen=True)
class Args:
    """What to emulate and where."""

    robot: Positional[str]
    """Name of the robot; `robo-rl robots` lists them."""
    port: int | None = None
    """First port; further robots follow. 0 takes free ones. By default that of the robot's address."""
    host: str = "127.0.0.1"
    """Address of this machine to serve at."""
    num: int = 1
    """Number of robots, one port each."""
    time_scale: float = 1.0
    """Emulated seconds per real second."""
    fault: UseAppendAction[tuple[str, ...]] = ()
    """A fault, as the robot names it; may be given repeatedly."""
    seed: int = 0
    """Seed of noise, packet loss and drawn instants."""
    scene: str | None = None
    """Scene whose simulator is the robots' world, for instance quadrotor/hover; by default the built-in one."""
    airframe: str | None = None
    """Crazyflie: preset of its airframe.toml that flies, where the scene has the choice too; by default its own."""
    family: Literal["nominal", "train", "wide"] = "nominal"
    """Family of worlds the scene draws from."""
    mocap: bool = False
    """Crazyflie: also play the motion-capture computer, which tells every drone where all of them are."""
    mocap_rate: float = 100.0
    """Frames per second."""
    mocap_dropout: float = 0.0
    """Share of frames in which a drone is not recognised."""
    mocap_noise: float = 0.001
    """Standard deviation of a coordinate, m."""
    mocap_port: int | None = None
    """Port where programs subscribe to the frames; 0 takes a free one, as --port 0 does."""
    onboard: str | None = None
    """Crazyflie: policy that flies on board, compiled with gcc: a file, run directory, zoo:NAME, or exported folder."""
    obstacles: Path | None = None
    """Crazyflie: TOML file of upright cylinders, in the world and known on board: centres_m and radius_m."""
    duration: float | None = None
    """Stop after so many emulated seconds."""
    linger: float = 0.0
    """Seconds for which the first signal is put off while a robot flies, so that it can still be landed."""


def run(args: Args) -> Outcome:
    """Serves until told to stop; the result holds what was served."""
    spec = load_spec(args.robot)
    try:
        module = importlib.import_module(f"hardware.robots.{args.robot}.emulator")
    except ModuleNotFoundError as e:
        raise NotFoundError("emulator of robot", args.robot, robot_names()) from e
    if args.duration is not None and not args.duration > 0.0:
        raise BadInput(f"duration {args.duration}; expected seconds above 0")
    if args.seed < 0:
        raise BadInput(f"seed {args.seed}; expected at least 0")
    port = int(spec.address.rsplit(":", 1)[1]) if args.port is None else args.port
    emulator = module.make_emulator(
        num=args.num,
        host=args.host,
        port=port,
        time_scale=args.time_scale,
        faults=args.fault,
        seed=args.seed,
        plant=_plant(args),
        **_further(args),
    )
    previous = {
        s: signal.signal(s, lambda *_: emulator.request_stop(args.linger)) for s in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        for number, address in enumerate(emulator.addresses, start=1):
            print(f"{args.robot} {number} of {args.num} at {address}")
        ready = {"robot": args.robot, "addresses": emulator.addresses, "time_scale": args.time_scale}
        ready |= getattr(emulator, "also", {})
        if "mocap" in ready:
            print(f"motion capture at {ready['mocap']}")
        print(f"READY {json.dumps(ready)}", flush=True)
        with real_time():  # a robot's physics waits for nobody
            emulator.serve(float("inf") if args.duration is None else args.duration)
    finally:
        emulator.stop()
        for number, handler in previous.items():
            signal.signal(number, handler)
    if emulator.slipped_s > 0.0:
        print(f"this machine could not keep up: {emulator.slipped_s:.2f} s of emulated time were given up")
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return Outcome(
        {
            **ready,
            "slipped_s": emulator.slipped_s,
            "cpu_s": usage.ru_utime + usage.ru_stime,
            **emulator.figures(),
        }
    )


def _further(args: Args) -> dict[str, Any]:
    """Arguments of the emulator that only some robots have."""
    given = {"mocap": args.mocap} | {n: getattr(args, n) is not None for n in ("airframe", "onboard", "obstacles")}
    if args.robot != "crazyflie":
        if unknown := [f"--{name}" for name, there in given.items() if there]:
            raise BadInput(f"{unknown[0]} is for robot 'crazyflie', not '{args.robot}'")
        return {}
    if not args.mocap and any(getattr(args, f.name) != f.default for f in fields(args) if f.name.startswith("mocap_")):
        raise BadInput("rate, dropout, noise or port of motion capture given without --mocap")
    from hardware.robots.crazyflie import mocap
    from hardware.robots.crazyflie.motion_capture import Capture
    from hardware.robots.crazyflie.obstacles import read_obstacles

    further: dict[str, Any] = {"airframe": args.airframe or ""}
    if args.obstacles is not None:
        further["obstacles"] = read_obstacles(args.obstacles)
    if args.onboard is not None:
        from robo_rl.onboard_policy import CompiledPolicy, compiled

        library = compiled(args.onboard)
        further["onboard"] = lambda obstacles: CompiledPolicy(library, args.num, obstacles)
    if args.mocap:
        further["capture"] = Capture(args.mocap_rate, args.mocap_dropout, args.mocap_noise)
        free = 0 if args.port == 0 else mocap.DEFAULT_PORT
        further["mocap_port"] = free if args.mocap_port is None else args.mocap_port
    return further


def _plant(args: Args) -> Any:
    """The scene's simulator as the robots' world, or None for the built-in one."""
    if args.scene is None:
        return None
    import torch

    from sim.registry import scene_entry, summaries

    torch.set_num_threads(1)  # a handful of robots: threads would only wait for one another
    entry = scene_entry(args.scene)
    robot = summaries()[args.scene].get("robot")
    if robot != args.robot:
        raise BadInput(f"scene {args.scene} simulates robot '{robot}', not '{args.robot}'")
    if entry.plant is None:
        raise RoboError(f"scene {args.scene} offers no world for an emulator")
    config = entry.config
    if args.airframe is not None:
        if not hasattr(config, "airframe"):
            raise BadInput(f"scene {args.scene} has no choice of airframes")
        config = replace(config, airframe=args.airframe)
    return entry.plant(args.num, family=args.family, seed=args.seed, config=config)
