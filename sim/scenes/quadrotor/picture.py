"""Draws the scene's picture: flights of the classical controller through the family `train`.

`python -m sim.scenes.quadrotor.picture OUT.png` makes the picture of the README.
"""

import sys
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hardware.errors import BadInput
from sim.registry import make_env, scene_entry

SHOWN = 60


def draw(out: Path, seed: int = 0) -> None:
    """Paths and distances of SHOWN flights as PNG."""
    torch.set_num_threads(1)
    entry = scene_entry("quadrotor/hover")
    env = make_env("quadrotor/hover", SHOWN, family="train", seed=seed)
    act, track = entry.baseline(env), entry.track
    if track is None:
        raise BadInput("quadrotor/hover has no track to draw")
    places, distances = [track(env)], []
    for _ in range(env.episode_steps):
        distances.append(env.step(act()).metrics["distance"])
        places.append(track(env))
    path, distance = torch.stack(places[:-1]).numpy(), torch.stack(distances).numpy()
    times = [(i + 1) / env.spec.rate_hz for i in range(len(distance))]
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        left.plot(path[:, :, 0], path[:, :, 2], color="#2a6fbb", lw=0.7, alpha=0.6)
        left.plot(path[0, :, 0], path[0, :, 2], ".", color="#888888", ms=4)
        left.plot(0.0, 0.0, "+", color="#c8372d", ms=12, mew=2)
        left.set(title=f"{SHOWN} unknown drones fly to one point", xlabel="x (m)", ylabel="z (m)", aspect="equal")
        right.semilogy(times, distance, color="#2a6fbb", lw=0.6, alpha=0.5)
        right.axvspan(entry.config.hold_from_s, entry.config.episode_s, color="#e8e4d8", zorder=0)
        right.axhline(entry.config.radius_m, color="#c8372d", lw=1.2)
        right.set(title="classical controller, family train", xlabel="time (s)", ylabel="true distance (m)")
        figure.savefig(out, dpi=110, facecolor="white")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m sim.scenes.quadrotor.picture OUT.png")
    draw(Path(sys.argv[1]))
