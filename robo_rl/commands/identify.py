"""Find a scene's physical parameters, or a joint's servo, in recordings; propose new ranges.

Fits the simulator to windows of the logs and judges it on others. A parameter is identified only if its 95 % interval
is narrow, off its bounds and not collinear with another; for the others the prior stays, and the reason is printed.
Proposes the scene's ranges.toml as a diff; only --write changes the file.
"""

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from hardware.errors import BadInput, RoboError
from robo_rl.cli import Outcome

SERVO = "joint-servo"


@dataclass(frozen=True)
class Args:
    """What to identify, from what."""

    model: tyro.conf.Positional[str]
    """Scene, such as quadrotor/hover, or joint-servo."""
    logs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="LOG...")]
    """Recordings: directories or .mcap files."""
    write: bool = False
    """Write the proposed ranges.toml instead of only showing the difference."""
    known: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A parameter that was measured otherwise, as NAME=VALUE in its unit (a drone's mass from the scales); may be given
    repeatedly."""
    mode: str | None = None
    """Command mode of the recording; by default the one that was streamed most."""
    name: str | None = None
    """Namespace of the robot in the logs, where there are several."""
    search: Literal["auto", "gradient", "cma"] = "auto"
    """How to search: descents from several starts, evolution (CMA-ES) first, or evolution where descents fail."""
    seed: int = 0
    """Seed of the random starts."""
    report: Path | None = None
    """Write a page with pictures to this .html file."""
    joints: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Joints to identify, for joint-servo; by default all."""
    measured: str = "/joint_states"
    """Topic of the measured joints, for joint-servo."""
    commanded: str = "/joint_command"
    """Topic of the commanded joints, for joint-servo."""
    ranges: Path | None = None
    """The ranges.toml to propose changes to; by default the scene's own."""


def run(args: Args) -> Outcome:
    """Fits, judges, prints, and proposes or writes."""
    if not args.logs:
        raise BadInput("no LOG was given")
    known = _known(args.known)
    if args.model == SERVO:
        return _joints(args, known)
    return _scene(args, known)


def _known(given: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            raise BadInput(f"--known {text}: expected NAME=VALUE with a number") from None
    return found


def _scene(args: Args, known: dict[str, float]) -> Outcome:
    from hardware.log.reader import Log
    from hardware.spec import load_spec
    from robo_rl.runs import commit_of_source
    from sim.identify.logs import marked, read_recording, streamed_mode
    from sim.identify.propose import Provenance, diff, proposal, write
    from sim.identify.run import identify
    from sim.identify.windows import split
    from sim.ranges import read_ranges
    from sim.registry import ranges_path, scene_entry, summaries

    entry = scene_entry(args.model)
    if entry.rollout is None:
        raise BadInput(f"scene {args.model} offers no rollout to identify with")
    spec = load_spec(summaries()[args.model]["robot"])
    mode = args.mode or streamed_mode(Log(args.logs[0]), spec, args.name)
    rollout = entry.rollout(mode=mode, config=entry.config)
    recordings = [read_recording(path, spec, rollout, mode, args.name) for path in args.logs]
    for r in recordings:
        if r.quality.refusals:
            raise BadInput(f"{r.path}: {'; '.join(r.quality.refusals)}")
    windows = split(rollout, [r.track for r in recordings], *marked(recordings))
    count = f"{windows.train.count} windows of {rollout.window_s:g} s, {windows.held_out.count} held out"
    print(f"{args.model} from {mode}: {count} ({windows.rule})")
    found = identify(rollout, windows, known=known, seed=args.seed, search=args.search)
    _print(found)
    path = args.ranges or ranges_path(args.model)
    before, params = path.read_text(), read_ranges(path).params
    provenance = Provenance(
        [(r.path.name, r.digest) for r in recordings],
        f"{count}, {windows.rule}",
        datetime.datetime.now(datetime.UTC).date().isoformat(),
        commit_of_source()[0][:12],
    )
    after = proposal(before, found.identified, params, provenance)
    text = diff(path, before, after)
    result = _plain(found) | {"mode": mode, "windows": count, "diff": text, "written": False}
    if args.report is not None:
        from robo_rl.report.identification import write_report

        write_report(args.report, args.model, found, recordings, windows, text)
        print(f"report: {args.report}")
    if found.held_out.rejection:
        raise RoboError(f"the model is rejected: {found.held_out.rejection}")
    print(text or f"nothing of {path.name} changes", end="\n" if not text else "")
    if args.write and text:
        write(path, after)
        result["written"] = True
        print(f"written: {path}; retrain with: robo-rl train {args.model}")
    elif text:
        print("--write puts these numbers in place")
    return Outcome(result)


def _joints(args: Args, known: dict[str, float]) -> Outcome:
    from sim.identify.joints import identify_joint, joint_tracks

    if len(args.logs) != 1:
        raise BadInput(f"joint-servo takes one log, not {len(args.logs)}")
    if args.write:
        raise BadInput("joint-servo belongs to no scene: there is no ranges.toml to write")
    rate_hz, tracks = joint_tracks(args.logs[0], args.measured, args.commanded)
    wanted = args.joints or tuple(tracks)
    strange = [j for j in wanted if j not in tracks]
    if strange:
        raise BadInput(f"joint {', '.join(strange)} not found; joints: {', '.join(tracks)}")
    results, pictures, rejected = {}, {}, []
    for name in wanted:
        joint = identify_joint(tracks[name], rate_hz, known=known, seed=args.seed, search=args.search)
        print(f"{name}:")
        _print(joint.found)
        for model, rmse in joint.free_run.items():
            print(f"  free run over the held-out {joint.held_out_s:.1f} s, {model}: rmse {rmse:.4f} rad")
        results[name] = _plain(joint.found) | {"free_run_rmse": joint.free_run, "held_out_s": joint.held_out_s}
        pictures[name] = joint
        if joint.found.held_out.rejection:
            rejected.append(f"{name}: {joint.found.held_out.rejection}")
    if args.report is not None:
        from robo_rl.report.identification import write_joint_report

        write_joint_report(args.report, args.logs[0], pictures)
        print(f"report: {args.report}")
    if rejected:
        raise RoboError(f"the model is rejected for {len(rejected)} of {len(wanted)} joints: {rejected[0]}")
    return Outcome({"parameters": {n: r["parameters"] for n, r in results.items()}, "joints": results})


def _print(found: Any) -> None:
    if found.first_delay_s is not None:
        print(f"dead time by cross-correlation: {found.first_delay_s * 1e3:.1f} ms")
    for e in found.estimates:
        mark = "identified" if e.identified else f"prior stays: {e.reason}"
        print(f"  {e.name}: {e.fit:.4g} [{e.low:.4g}, {e.high:.4g}] {e.unit}  {mark}")
    h = found.held_out
    for name, value in h.rmse.items():
        print(f"  held out, {name}: rmse {value:.4g}, nominal model {h.nominal[name]:.4g}")
    print(f"held-out error: {h.ratio:.1%} of the nominal model's, {h.shuffled:.1%} of that with shuffled commands")


def _plain(found: Any) -> dict[str, Any]:
    from sim.identify.judge import summary

    h = found.held_out
    return {
        "parameters": summary(found.estimates),
        "held_out": {"rmse": h.rmse, "nominal_rmse": h.nominal, "ratio": h.ratio, "shuffled": h.shuffled},
        "rejection": h.rejection,
        "first_delay_s": found.first_delay_s,
        "noise": found.solution.noise._asdict(),
        "noise_factor": found.noise_factor,
    }
