"""Run a recorded flight again: through a policy (is it the same?) or through a simulator (how far do they part?).

`replay policy` rebuilds every observation from the recorded messages and compares commands; with the policy that flew,
anything above 1e-5 is a failure. `replay sim` puts the simulator into logged states and feeds it the logged commands.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from hardware.log.reader import Log
from robo_rl.cli import Outcome

LogPath = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="LOG")]


@dataclass(frozen=True)
class ThroughPolicy:
    """Feed a log's states, goals and sent commands to a policy; compare observations and commands."""

    policy: tyro.conf.Positional[str]
    """A .onnx file, a run directory, or zoo:NAME."""
    log: LogPath
    """Directory of a recording, or an .mcap file."""
    name: str | None = None
    """Namespace of the robot in the log, where there are several."""


@dataclass(frozen=True)
class ThroughSim:
    """Feed a log's commands to a scene's simulator; compare states after 1, 10, 50 and 200 steps and in a free run."""

    scene: tyro.conf.Positional[str]
    """Scene, such as quadrotor/hover."""
    log: LogPath
    """Directory of a recording, or an .mcap file."""
    mode: str | None = None
    """Command mode of the flight; by default the one that was streamed most."""
    name: str | None = None
    """Namespace of the robot in the log, where there are several."""


@dataclass(frozen=True)
class Args:
    """What to replay a log through."""

    action: (
        Annotated[ThroughPolicy, tyro.conf.subcommand("policy")] | Annotated[ThroughSim, tyro.conf.subcommand("sim")]
    )


def run(args: Args) -> Outcome:
    """Runs the chosen replay."""
    return _policy(args.action) if isinstance(args.action, ThroughPolicy) else _sim(args.action)


def _policy(args: ThroughPolicy) -> Outcome:
    from controllers.artifact import PolicyArtifact
    from controllers.parity import TOLERANCE, figures, replay_policy
    from robo_rl.zoo import resolve

    artifact = PolicyArtifact.load(resolve(args.policy))
    found = figures(replay_policy(artifact, Log(args.log), args.name), artifact)
    worst = found["max_action_difference"]
    same = found["same_policy"]
    print(
        f"{found['compared']} of {found['ticks']} ticks compared with {'the policy that flew' if same else args.policy}"
    )
    print(f"largest difference of a command, in action units: {worst:.3g}")
    print(f"largest difference of an observation: {found['max_observation_difference']:.3g}")
    for name, value in found["rmse"].items():
        print(f"  {name}: rmse {value:.3g} {found['units'][name]}".rstrip())
    print(f"latency p50 {found['latency_ms_p50']:.3f} ms, p99 {found['latency_ms_p99']:.3f} ms")
    if not same:
        print("this is not the policy that flew: a comparison, not a proof")
        return Outcome(found | {"parity": None})
    parity = worst <= TOLERANCE
    print(f"parity {'holds' if parity else 'FAILS'}: {worst:.3g} (allowed {TOLERANCE:g})")
    return Outcome(found | {"parity": parity}, 0 if parity else 1)


def _sim(args: ThroughSim) -> Outcome:
    from hardware.errors import BadInput
    from hardware.replay import recorded_commands, recorded_states
    from hardware.spec import load_spec
    from sim.registry import scene_entry, summaries
    from sim.replay import diverge, resample

    entry = scene_entry(args.scene)
    if entry.open_loop is None:
        raise BadInput(f"scene {args.scene} cannot be driven by a log")
    open_loop, spec = entry.open_loop, load_spec(summaries()[args.scene]["robot"])
    log = Log(args.log)
    commands = list(recorded_commands(log, spec, args.name))
    mode = args.mode or _streamed_most([c.value.mode for c in commands], args.log)
    track = resample(recorded_states(log, spec, args.name), commands, mode, spec.mode(mode).rate_hz)
    found = diverge(lambda num: open_loop(num, mode=mode, config=entry.config), track)
    result: dict[str, Any] = asdict(found) | {"mode": mode, "duration_s": len(track.commands) * track.dt_s}
    print(f"{result['duration_s']:.1f} s of {mode}, {found.windows} windows")
    for name, by_k in found.rmse.items():
        errors = "  ".join(f"{k}: {v:.4g}" for k, v in by_k.items())
        print(f"  {name}: rmse after k steps  {errors}  free run: {found.free_run[name]:.4g}")
    delay = "not measurable" if found.delay_s is None else f"{found.delay_s * 1e3:.1f} ms"
    print(f"delay of the log behind the simulator: {delay}")
    if found.diverged_s is not None:
        print(f"the free run is more than 0.25 m off after {found.diverged_s:.2f} s")
    return Outcome(result)


def _streamed_most(modes: list[str], log: Path) -> str:
    from hardware.errors import BadInput

    if not modes:
        raise BadInput(f"{log}: no commands were recorded")
    return max(dict.fromkeys(modes), key=modes.count)
