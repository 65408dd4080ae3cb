"""The demo's loop: which commands it runs, and what its report says about them."""

import csv
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hardware.spec import load_spec
from robo_rl.report import figures
from robo_rl.report.page import Section, write_page
from robo_rl.report.recording import read_flight
from robo_rl.report.stages import Stage, run_stage

SCENE = "quadrotor/hover"
SUCCESS, SETTLED_M, OVERRUNS, LATENCY_MS, PARITY = 0.99, 0.15, 0.01, 1.0, 1e-5
"""Targets: success rate over the family, distance after 5 s, share of missed ticks, p99 of the policy, replay."""
GOALS = ("0.5,0.5,1.2", "-0.5,0.3,0.8")


@dataclass(frozen=True)
class Plan:
    """What the demo is to do."""

    out: Path
    seed: int
    steps: int | None
    episodes: int
    duration_s: float
    transport: str


def stages(plan: Plan) -> list[Stage]:
    """The commands of the loop, in order."""
    run, flight, seed = str(plan.out / "train"), str(plan.out / "flight"), str(plan.seed)
    policy = f"{run}/policy.onnx"
    budget = () if plan.steps is None else ("--steps", str(plan.steps))
    worlds = ("--episodes", str(plan.episodes), "--seed", seed, "--baseline")
    train = ("train", SCENE, "--seed", seed, *budget, "--processes", "2", "--eval-episodes", "0", "--out", run)
    render = ("--render", str(plan.out / "rollouts.png"))
    fly = ("deploy", policy, "--robot", "crazyflie", "--mode", "emulated", "--transport", plan.transport)
    # A goal that begins with a minus would look like an option, hence `--goal=`.
    goals = (f"--goal={GOALS[0]}", GOALS[1])
    return [
        Stage("train", "training a hover policy in randomized worlds", train),
        Stage("eval", "evaluating it in worlds it has not seen, beside the classical controller",
              ("eval", policy, *worlds, "--family", "train", *render)),
        Stage("wide", "the same with every range stretched by half", ("eval", policy, *worlds, "--family", "wide")),
        Stage("inspect", "checking the exported policy file", ("inspect", policy)),
        Stage("deploy", "flying an emulated Crazyflie",
              (*fly, *goals, "--duration", f"{plan.duration_s:g}", "--log", flight)),
        Stage("log", "reading the recording", ("log", "info", flight)),
        Stage("parity", "replaying the recording through the policy", ("replay", "policy", policy, flight)),
        Stage("sim", "replaying the recording through the simulator", ("replay", "sim", SCENE, flight)),
    ]  # fmt: skip


def run_stages(plan: Plan) -> dict[str, Any]:
    """Runs every command; returns stage name -> its `--json` result."""
    todo = stages(plan)
    return {s.name: run_stage(s, i, len(todo), plan.out) for i, s in enumerate(todo, 1)}


def write_report(plan: Plan, results: dict[str, Any]) -> tuple[str, bool]:
    """Writes `report.html`; returns the verdict in one sentence and whether every target was reached."""
    commands = {s.name: s.command for s in stages(plan)}
    sections = [
        _training(plan, results, commands),
        _evaluation(plan, results, commands),
        _flight(plan, results, commands),
        _replays(plan, results, commands),
    ]
    missed = [s.title for s in sections if s.ok is False]
    ok = not missed
    verdict = (
        f"The loop closed in {results['wall_s']:.0f} s and every target was reached."
        if ok
        else f"The loop closed in {results['wall_s']:.0f} s; targets were missed in: {', '.join(missed)}."
    )
    facts = (
        f"Seed {plan.seed}; {platform.processor() or platform.machine()}, Python {platform.python_version()}; "
        f"trained from scratch, no stored policy. Run it again with: {_again(plan)}"
    )
    write_page(
        plan.out / "report.html",
        title="From scratch to flight: a hover policy",
        verdict=verdict,
        ok=ok,
        facts=facts,
        sections=sections,
    )
    return verdict, ok


def _again(plan: Plan) -> str:
    """The command line of this demo."""
    steps = "" if plan.steps is None else f" --steps {plan.steps}"
    rest = f"--episodes {plan.episodes} --duration {plan.duration_s:g} --transport {plan.transport}"
    return f"robo-rl demo --seed {plan.seed}{steps} {rest}"


def _training(plan: Plan, results: dict[str, Any], commands: dict[str, str]) -> Section:
    r = results["train"]
    with (plan.out / "train" / "metrics.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    column = lambda name: np.array([float(row[name]) if row[name] else np.nan for row in rows])  # noqa: E731
    series = {"mean return per episode": column("return_mean"), "distance at the end (m)": column("distance")}
    return Section(
        title="Training",
        text=(
            "PPO flies a thousand drones at once, each with its own mass, inertia, thrust curve, motor lag, battery, "
            "delay and sensor noise. Drones start tilted by up to 60 degrees and spinning."
        ),
        command=commands["train"],
        rows=[
            ("environment steps", f"{r['env_steps']:,}", ""),
            ("simulated flight time", f"{r['env_steps'] / 100 / 3600:.1f} h", "100 steps per second"),
            ("training time", f"{r['wall_s']:.0f} s", f"{r['stage_s']:.0f} s with start, export and curves"),
            ("steps per second", f"{r['env_steps_per_s']:,.0f}", ""),
        ],
        pictures=[(figures.learning_curve(column("env_steps"), series), "Learning curve.")],
    )


def _evaluation(plan: Plan, results: dict[str, Any], commands: dict[str, str]) -> Section:
    rows, dots = [], []
    for name, family in (("eval", "train"), ("wide", "wide")):
        for who, r in (("policy", results[name]), ("classical", results[name]["baseline"])):
            low, high = r["success_ci95"]
            dots.append((f"{who}, {family}", r["success_rate"], low, high))
            target = f"target {SUCCESS:.0%}" if (who, family) == ("policy", "train") else ""
            value = f"{r['success_rate']:.1%} ({low:.1%} to {high:.1%})"
            rows.append((f"success of the {who} in family {family}", value, target))
    worst = results["eval"]["return_cvar10"], results["eval"]["baseline"]["return_cvar10"]
    rows.append(("return in the worst tenth of worlds", f"{worst[0]:.2f}", f"classical: {worst[1]:.2f}"))
    return Section(
        title="Evaluation",
        text=(
            f"{plan.episodes:,} episodes in worlds never trained on. An episode succeeds when the drone never crashes "
            "and stays within 5 cm of the goal at every step of its last 2.5 seconds. The classical controller flies "
            "the same worlds."
        ),
        command=commands["eval"],
        rows=rows,
        pictures=[
            (figures.success_intervals(dots, target=SUCCESS), "Success with 95 % intervals; dashed: the target."),
            ((plan.out / "rollouts.png").read_bytes(), "Flights of the policy and of the classical controller."),
        ],
        ok=results["eval"]["success_rate"] >= SUCCESS,
    )


def _flight(plan: Plan, results: dict[str, Any], commands: dict[str, str]) -> Section:
    r, robot = results["deploy"], load_spec("crazyflie")
    path = Path(r["log"])
    f = read_flight(path, robot)
    names = robot.mode("attitude_thrust").components
    missed = r["overruns"] / max(r["ticks"], 1)
    ok = bool(r["success"]) and missed <= OVERRUNS
    ok = ok and _within(r["distance_m_max"], SETTLED_M) and _within(r["latency_ms_p99"], LATENCY_MS)
    note = "over ROS 2, in processes of their own" if r["transport"] == "ros2" else "directly, rclpy is not installed"
    if plan.transport == "direct":
        note = "directly, as asked"
    return Section(
        title="Flight",
        text=(
            f"The exported file flew an emulated Crazyflie {note}. The emulator speaks the drone's real protocol and "
            "runs its attitude control at 500 Hz; the policy sends set points at 100 Hz through the guard, under the "
            "supervisor's eyes."
        ),
        command=commands["deploy"],
        rows=[
            *([("ended early", r["reason"], "")] if r["reason"] else []),
            ("largest distance from 5 s on", _number(r["distance_m_max"], "m"), f"target {SETTLED_M:g} m"),
            ("ticks missed", f"{missed:.2%} of {r['ticks']:,}", f"target {OVERRUNS:.0%}"),
            ("time for one command, p99", _number(r["latency_ms_p99"], "ms"), f"target {LATENCY_MS:g} ms"),
            ("from observation to command, p99", _number(r["observation_to_command_ms_p99"], "ms"), ""),
            ("commands changed by the guard", f"{r['guard_interventions']:,}", ""),
            ("messages recorded", f"{results['log']['messages']:,}", f"{results['log']['duration_s']:.1f} s"),
        ],
        pictures=[
            (figures.flight(f.t_s, f.position, f.goal, f.phases, SETTLED_M), "The flight, read from its recording."),
            (figures.commands(f.tick_t_s, f.command, f.sent, names), "What the policy wished and what was sent."),
        ],
        ok=ok,
    )


def _within(value: float | None, bound: float) -> bool:
    return value is not None and value <= bound


def _number(value: float | None, unit: str) -> str:
    """Three decimals, or that there was nothing to measure: a flight may end before it does."""
    return "not measured" if value is None else f"{value:.3f} {unit}"


def _replays(plan: Plan, results: dict[str, Any], commands: dict[str, str]) -> Section:
    parity, sim = results["parity"], results["sim"]
    units = {s.name: s.unit for s in load_spec("crazyflie").signals.values()}
    return Section(
        title="Replay",
        text=(
            "The recorded states, put through the interpreter and the policy again, must give the recorded commands: "
            "that proves the pipeline from sensor to command. The recorded commands, fed to the simulator, show how "
            "far its nominal drone is from the one that flew."
        ),
        command=f"{commands['parity']}\n{commands['sim']}",
        rows=_replay_rows(parity, sim),
        pictures=[(figures.divergence(sim["rmse"], units), "How fast the simulator and the recording part.")],
        ok=parity["max_action_difference"] <= PARITY,
    )


def _replay_rows(parity: dict[str, Any], sim: dict[str, Any]) -> list[tuple[str, str, str]]:
    delay = sim["delay_s"]
    return [
        ("largest difference of a command", f"{parity['max_action_difference']:.2g}", f"target {PARITY:g}"),
        ("ticks compared", f"{parity['compared']:,} of {parity['ticks']:,}", ""),
        *((f"position error after {k} steps", f"{v:.4f} m", "") for k, v in sim["rmse"]["position_world"].items()),
        ("delay behind the simulator", "not measurable" if delay is None else f"{delay * 1e3:.0f} ms", ""),
    ]
