"""Run a recording again: through a policy (is it the same?), through a simulator (how far do they part?), or judge a
policy that never ran by recorded transitions.

`replay policy` rebuilds every observation from the recorded messages and compares commands; with the policy that flew,
anything above 1e-5 is a failure. `replay sim` puts the simulator into logged states and feeds it the logged commands.
`replay ope` estimates what a policy would earn, from a data set, or says that the data do not suffice.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray

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
    data: Path | None = None
    """A data set whose observations count as known; by default the 16 that the policy file carries."""
    report: Path | None = None
    """Write a page with pictures to this .html file."""
    annotator: str = ""
    """Address that `robo-rl annotate LOG` printed, for links from the report to the worst windows."""


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
    seed: int = 0
    """Seed of the worlds that are drawn from the scene's ranges."""
    report: Path | None = None
    """Write a page with pictures to this .html file."""
    annotator: str = ""
    """Address that `robo-rl annotate LOG` printed, for links from the report to the worst windows."""


@dataclass(frozen=True)
class OffPolicy:
    """Estimate a policy's return from a data set alone: fitted Q evaluation and weighted importance sampling."""

    policy: tyro.conf.Positional[str]
    """A .onnx file, a run directory, or zoo:NAME."""
    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """Folder of a data set, as `robo-rl dataset` makes it."""
    gamma: float = 0.99
    """Discount per step."""
    steps: int = 4000
    """Gradient steps of every fitted network."""
    seed: int = 0
    """Seed of networks and resampling."""
    report: Path | None = None
    """Write a page with the figures to this .html file."""


@dataclass(frozen=True)
class Args:
    """What to replay."""

    action: (
        Annotated[ThroughPolicy, tyro.conf.subcommand("policy")]
        | Annotated[ThroughSim, tyro.conf.subcommand("sim")]
        | Annotated[OffPolicy, tyro.conf.subcommand("ope")]
    )


def run(args: Args) -> Outcome:
    """Runs the chosen replay."""
    if isinstance(args.action, ThroughPolicy):
        return _policy(args.action)
    return _sim(args.action) if isinstance(args.action, ThroughSim) else _ope(args.action)


def _policy(args: ThroughPolicy) -> Outcome:
    from controllers.artifact import PolicyArtifact
    from controllers.parity import TOLERANCE, figures, replay_policy, strangeness, worst_windows
    from robo_rl.report.replay import write_policy_report
    from robo_rl.zoo import resolve

    artifact = PolicyArtifact.load(resolve(args.policy))
    log = Log(args.log)
    replayed = replay_policy(artifact, log, args.name)
    strange = strangeness(replayed, artifact, None if args.data is None else _known(args.data))
    t_ns = np.array(replayed.t_ns)
    found = figures(replayed, artifact)
    by = strange.score if found["same_policy"] else _distance(replayed, artifact)
    worst_at = [((t - log.start_ns) / 1e9, value) for t, value in worst_windows(t_ns, by)]
    found |= {
        "out_of_distribution": {
            "median": float(np.median(strange.score)),
            "p99": float(np.percentile(strange.score, 99)),
            "known_observations": strange.known,
        },
        "worst_windows": [{"t_s": t, "score": v} for t, v in worst_at],
    }
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
    print(f"saturated: {found['saturated_share']:.2%} of the commands")
    ood = found["out_of_distribution"]
    print(
        f"distance from {ood['known_observations']} known observations: median {ood['median']:.2f}, "
        f"p99 {ood['p99']:.2f} (1: usual)"
    )
    if worst_at:
        what = "strangest" if same else "most different"
        print(f"{what} second: robo-rl annotate {args.log} --at {worst_at[0][0]:.2f}")
    if args.report is not None:
        write_policy_report(args.report, args.log, found, replayed, strange.score, artifact, args.annotator)
        print(f"report: {args.report}")
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
    from robo_rl.report.replay import write_sim_report
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
        print(f"the free run is more than {found.diverged_at} off after {found.diverged_s:.2f} s")
    offset_s = (track.start_ns - log.start_ns) / 1e9
    result["worst_windows"] = [{"t_s": t + offset_s, "score": v} for t, v in found.worst]
    covered = None
    if entry.rollout is not None:
        covered = _coverage(entry.rollout(mode=mode, config=entry.config), log, spec, mode, args)
    if covered is not None:
        result["coverage"] = covered.share
        for name, share in covered.share.items():
            print(f"  {name}: {share:.1%} of the log inside the 5-95 % band of the scene's ranges (90 % wanted)")
    if found.worst:
        print(f"worst window: robo-rl annotate {args.log} --at {found.worst[0][0] + offset_s:.2f}")
    if args.report is not None:
        write_sim_report(args.report, args.scene, args.log, result, covered, args.annotator)
        print(f"report: {args.report}")
    return Outcome(result)


def _coverage(rollout: Any, log: Log, spec: Any, mode: str, args: ThroughSim) -> Any:
    """None where the log is too short for a few windows or lacks a signal."""
    from hardware.errors import BadInput
    from sim.identify.coverage import coverage
    from sim.identify.logs import read_recording
    from sim.identify.windows import split

    try:
        recording = read_recording(log.path, spec, rollout, mode, args.name)
        return coverage(rollout, split(rollout, [recording.track]).train, seed=args.seed)
    except BadInput as e:
        print(f"coverage not measured: {e}")
        return None


def _ope(args: OffPolicy) -> Outcome:
    from controllers.artifact import PolicyArtifact
    from robo_rl.algorithms.fqe import FqeConfig
    from robo_rl.datasets import read
    from robo_rl.ope import estimate
    from robo_rl.report.replay import write_ope_report
    from robo_rl.zoo import resolve

    config = FqeConfig(gamma=args.gamma, steps=args.steps)
    found = estimate(PolicyArtifact.load(resolve(args.policy)), read(args.data), config=config, seed=args.seed)
    print(f"{found['episodes']} episodes, {found['rows']} steps; recorded return {found['recorded_return']:.4g}")
    print(f"mean distance of the policy's actions from the recorded ones: {found['action_distance']:.3f}")
    for key, words in (("fqe", "fitted Q evaluation"), ("wis", "weighted importance sampling")):
        e = found[key]
        if e["value"] is None:
            print(f"{words}: {e['reason']}")
            continue
        low, high = e["ci95"]
        size = f", {e['effective_episodes']:.1f} effective episodes" if "effective_episodes" in e else ""
        print(f"{words}: {e['value']:.4g} [{low:.4g}, {high:.4g}]{size}")
    if args.report is not None:
        write_ope_report(args.report, args.policy, args.data, found)
        print(f"report: {args.report}")
    return Outcome(found)


def _known(data: Path) -> NDArray[np.float64]:
    from robo_rl.datasets import read

    return read(data).obs.astype(np.float64)


def _distance(replayed: Any, artifact: Any) -> NDArray[np.float64]:
    """(T,) length of the difference of commands, in action units."""
    scale = np.array([f.scale for f in artifact.card.action])
    return np.linalg.norm((np.array(replayed.wanted) - np.array(replayed.recorded)) / scale, axis=1)


def _streamed_most(modes: list[str], log: Path) -> str:
    from hardware.errors import BadInput

    if not modes:
        raise BadInput(f"{log}: no commands were recorded")
    return max(dict.fromkeys(modes), key=modes.count)
