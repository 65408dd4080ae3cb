"""Compare controllers and policies in the greenhouse: the standard season, or 64 fixed worlds.

    python examples/compare_greenhouse.py
    python examples/compare_greenhouse.py --weather measured --laws off grower rule mpc zoo:greenhouse-lettuce
    python examples/compare_greenhouse.py --worlds family --laws rule zoo:greenhouse-lettuce --table scores.json

Laws are `off`, `grower` and `rule` (set points), `mpc` (model predictive control, some 0.03 s per step and greenhouse:
a season of one greenhouse takes a minute), or policies: files, run directories, zoo:NAME. The worlds are those of the
split `test`; look at them last, and choose between policies with `--split validation`.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from controllers.artifact import PolicyArtifact
from robo_rl.evaluate import law_of, scene_config
from robo_rl.report.figures import BLUE, GREY, ORANGE, STYLE, png
from robo_rl.stats import bootstrap, cvar
from robo_rl.zoo import resolve
from sim.registry import scene_entry
from sim.scenes.greenhouse.baseline import LAWS
from sim.scenes.greenhouse.contest import SCENE, family_of_seasons, standard_season
from sim.scenes.greenhouse.mpc import mpc

METRICS = ("epi", "penalty", "degree_hours", "ppm_hours", "percent_hours", "heat_kwh", "co2_kg", "travel", "crop")


def seasons(law: str, args: argparse.Namespace) -> dict[str, NDArray[np.float64]]:
    """Return and metrics of every season that a law grows."""
    entry = scene_entry(SCENE)
    artifact = None if law in LAWS or law == "mpc" else PolicyArtifact.load(resolve(law))
    config = entry.config if artifact is None else scene_config(artifact, entry.config)
    chosen = {"weather": args.weather, "split": args.split, "step_noise": args.step_noise, "substep_s": args.substep}
    chosen["structure"] = args.structure
    if args.forecast:
        chosen["forecast"] = args.forecast
    config = dataclasses.replace(config, **chosen)
    if args.worlds == "standard":
        env = standard_season(entry.make, config, draws=args.draws)
    else:
        every = args.mpc_every if law == "mpc" else 1
        env = family_of_seasons(entry.make, config, family=args.family, every=every)
    obs, total, limit = env.reset(0), torch.zeros(env.num_envs, dtype=torch.float64), args.steps or env.episode_steps
    act: Any = law_of(artifact) if artifact else (mpc if law == "mpc" else LAWS[law])(env)
    with torch.no_grad():
        for _ in range(limit):
            step = env.step(act(obs) if artifact else act())
            obs = step.obs
            total += step.reward.double()
    return {"return": total.numpy()} | {k: step.metrics[k].double().numpy() for k in METRICS}


def row(law: str, found: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    """The figures of one law, with a bootstrap interval of the mean where there are many seasons."""
    returns = found["return"]
    result: dict[str, Any] = {
        "law": law,
        "seasons": len(returns),
        "mean": float(returns.mean()),
        "cvar10": cvar(returns),
        "cvar25": cvar(returns, 0.25),
        "least": float(returns.min()),
    }
    if len(returns) > 1:
        result["mean_ci95"] = list(bootstrap(returns, lambda x: float(np.mean(x)), rng=np.random.default_rng(0)))
    return result | {k: float(v.mean()) for k, v in found.items() if k != "return"} | {"returns": returns.tolist()}


def scored(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with `score`: 0 = the tuned rule, 1 = model predictive control, on the seasons that both have grown."""
    by_law = {r["law"]: np.array(r["returns"]) for r in rows}
    if not {"rule", "mpc"} <= by_law.keys():
        return rows
    every = len(by_law["rule"]) // len(by_law["mpc"])
    low, high = by_law["rule"][::every].mean(), by_law["mpc"].mean()
    mean = {law: float((r if law == "mpc" else r[::every]).mean()) for law, r in by_law.items()}
    return [r | {"score": (mean[r["law"]] - low) / (high - low)} for r in rows]


def draw(rows: list[dict[str, Any]], title: str) -> bytes:
    """Bars of the mean return with its interval, and what the worst tenth earns; losses below -8 are cut off."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 0.9 + 0.42 * len(rows)), layout="constrained")
        ax = figure.subplots()
        for i, r in enumerate(rows):
            low, high = r.get("mean_ci95", (r["mean"], r["mean"]))
            ax.barh(-i, max(r["mean"], -8.0), color=GREY if r["law"] in (*LAWS, "mpc") else BLUE, height=0.6)
            ax.plot([max(low, -8.0), max(high, -8.0)], [-i, -i], color="black", lw=2)
            if r["seasons"] > 1:
                ax.plot(max(r["cvar10"], -8.0), -i, "|", color=ORANGE, ms=14, mew=2.5)
            ax.annotate(f"{r['mean']:.2f}", (max(r["mean"], 0.0), -i), (8, 0), textcoords="offset points", va="center")
        ax.set_yticks([-i for i in range(len(rows))], [r["law"] for r in rows])
        ax.set(title=title, xlabel="return of a season, EUR/m2 (line: 95 % interval of the mean; orange: worst tenth)")
        return png(figure)


def main() -> None:
    """Prints the table and, where wanted, writes it as JSON and as a picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--laws", nargs="+", default=["off", "grower", "rule"], help="laws and policies")
    parser.add_argument("--worlds", choices=("standard", "family"), default="standard")
    parser.add_argument("--weather", default="synthetic", help="synthetic, measured, or a file")
    parser.add_argument("--split", default="test", help="validation, test or shift")
    parser.add_argument("--family", default="train", help="nominal, train or wide: how the 8 greenhouses are drawn")
    parser.add_argument("--structure", action="store_true", help="houses of very different build too")
    parser.add_argument("--forecast", default="", help="perfect, noisy or none, where it is not the policy's own")
    parser.add_argument("--step-noise", type=float, default=0.0, help="on all coefficients; the benchmark has 0.05")
    parser.add_argument("--substep", type=float, default=450.0, help="integration step, s; the benchmark's is 450")
    parser.add_argument("--draws", type=int, default=1, help="standard season: how many draws of the noise")
    parser.add_argument("--mpc-every", type=int, default=8, help="family: mpc grows only every so many seasons")
    parser.add_argument("--steps", type=int, default=0, help="steps of a season, where it is to end early")
    parser.add_argument("--table", type=Path, help="JSON file of all figures")
    parser.add_argument("--picture", type=Path, help="PNG of the comparison")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    print(f"{args.worlds} worlds, weather {args.weather} ({args.split}); return in EUR/m2 of a season")
    for law in args.laws:
        rows.append(row(law, seasons(law, args)))
        r = rows[-1]
        low, high = r.get("mean_ci95", (r["mean"], r["mean"]))
        print(
            f"{law:28s} {r['mean']:8.3f} [{low:.3f}, {high:.3f}]  tenth {r['cvar10']:8.3f}  least {r['least']:8.3f}"
            f"  profit {r['epi']:6.3f}  penalty {r['penalty']:6.3f}  seasons {r['seasons']}",
            flush=True,
        )
    rows = scored(rows)
    if "score" in rows[0]:
        print("score (0 rule, 1 mpc): " + ", ".join(f"{r['law']} {r['score']:.2f}" for r in rows))
    if args.table:
        args.table.write_text(json.dumps({"settings": vars(args), "rows": rows}, indent=1, default=str))
    if args.picture:
        args.picture.write_bytes(
            draw(rows, f"greenhouse/lettuce, {args.worlds}, weather {args.weather} ({args.split})")
        )


if __name__ == "__main__":
    main()
