"""Draws a season: climate against its bounds, controls, weather, and where the money went.

`python -m sim.scenes.greenhouse.picture OUT.png` draws the picture of the README: a grower's set points and tuned ones
in the benchmark's season, or in the bundled year where the measured weather is not installed.
"""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from hardware.errors import BadInput
from sim.registry import make_env, scene_entry
from sim.scenes.greenhouse.weather import catalogue

Law = Callable[[Mapping[str, Tensor]], Tensor]
Array = NDArray[np.float64]

COLORS = ("#0072b2", "#d55e00", "#009e73")
"""Okabe and Ito's palette."""
GREY, BOUND = "#8a94a0", "#e9f2e6"
_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
_MONEY = ("revenue", "heat_cost", "co2_cost", "electricity_cost", "penalty")


def draw_season(out: Path, make: Callable[[], Any], laws: Mapping[str, Callable[[Any], Law]], title: str) -> None:
    """One season under each law as PNG; `make()` gives a fresh environment of one greenhouse, always the same one."""
    if out.suffix.lower() != ".png":
        raise BadInput(f"{out}: a season is drawn as .png")
    seasons = {name: _season(make(), law) for name, law in laws.items()}
    env = make()
    bounds, prices = env.task.config.bounds, env.task.config.prices
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(12, 9), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")
        axes = figure.subplots(4, 2, sharex=True)
        climate = (
            ("air_temperature", "air temperature (°C)", bounds.temperature, 1.0),
            ("relative_humidity", "relative humidity (%)", bounds.humidity, 100.0),
            ("co2", "CO2 (ppm)", bounds.co2, 1.0),
        )
        for ax, (name, label, (low, high), scale) in zip(axes[:3, 0], climate, strict=True):
            ax.axhspan(low, high, color=BOUND, zorder=0)
            _lines(ax, seasons, lambda s, n=name, k=scale: k * s[n][:, 0])
            ax.set(title=f"{label}, bounds shaded")
        first = next(iter(seasons.values()))
        axes[0, 0].plot(first["day"], first["outdoor"][:, 1], color=GREY, lw=0.6, label="outdoors")
        axes[0, 0].legend(ncols=3, loc="upper left")
        _lines(axes[3, 0], seasons, lambda s: 1000.0 * s["crop_dry_weight"][:, 0], lw=1.6)
        axes[3, 0].set(title="lettuce, dry weight (g/m²)", xlabel="day of the season")
        for column, (ax, label) in enumerate(
            zip(axes[:3, 1], ("CO2 injection", "ventilation", "heating"), strict=True)
        ):
            _lines(ax, seasons, lambda s, c=column: 100.0 * s["actuators"][:, c])
            ax.set(title=f"{label} (% of {env.task.largest[column]:g} {('mg/m²/s', 'mm/s', 'W/m²')[column]})")
            ax.set_ylim(-3, 103)
        sun = 0.1 * first["outdoor"][:, 0]
        axes[2, 1].fill_between(first["day"], sun, color="#f0c24b", lw=0, zorder=0, label="sun (% of 1000 W/m²)")
        axes[2, 1].legend(handles=axes[2, 1].collections, loc="upper left")
        _money(axes[3, 1], seasons)
        axes[3, 1].set(
            title=f"EUR/m² since planting; lettuce {prices.crop:.2f}/kg dry, heat {prices.heat:g}/kWh, "
            f"CO2 {prices.co2:g}/kg",
            xlabel="day of the season",
        )
        figure.savefig(out, dpi=110, facecolor="white")


def _season(env: Any, law: Callable[[Any], Law]) -> dict[str, Array]:
    """Signals before each step and sums after it, name -> (T, k), of the first greenhouse."""
    obs, act = env.reset(), law(env)
    rows: dict[str, list[Array]] = {}
    with torch.no_grad():
        for t in range(env.episode_steps):
            signals = env.task.truth(env.task.view(None))
            step = env.step(act(obs))
            obs = step.obs
            seen = {name: signals[name][0] for name in (*_SIGNALS, "actuators")}
            seen |= {name: step.metrics[name][:1] for name in (*_MONEY, "epi")}
            seen["day"] = torch.tensor([t / env.spec.rate_hz / 86400.0])
            for name, value in seen.items():
                rows.setdefault(name, []).append(value.double().cpu().numpy().copy())
    found = {name: np.stack(values) for name, values in rows.items()}
    return found | {"day": found["day"][:, 0]}


_SIGNALS = ("air_temperature", "relative_humidity", "co2", "crop_dry_weight", "outdoor")


def _lines(
    ax: Any, seasons: Mapping[str, dict[str, Array]], value: Callable[[dict[str, Array]], Array], lw: float = 0.7
) -> None:
    for color, (name, season) in zip(COLORS, seasons.items(), strict=False):
        ax.plot(season["day"], value(season), color=color, lw=lw, label=name, alpha=0.9)


def _money(ax: Any, seasons: Mapping[str, dict[str, Array]]) -> None:
    """Return, profit and penalties of each law over the season, with the sums at its end."""
    ax.axhline(0.0, color=GREY, lw=0.6)
    for color, (name, season) in zip(COLORS, seasons.items(), strict=False):
        profit, penalty = season["epi"][:, 0], season["penalty"][:, 0]
        ax.plot(season["day"], profit - penalty, color=color, lw=1.6, label=f"{name}: {profit[-1] - penalty[-1]:+.2f}")
        ax.plot(season["day"], profit, color=color, lw=0.9, ls="--", label=f"  profit {profit[-1]:+.2f}")
        ax.plot(season["day"], -penalty, color=color, lw=0.9, ls=":", label=f"  penalties {-penalty[-1]:+.2f}")
    ax.legend(loc="lower left", ncols=len(seasons))


def main(out: Path) -> None:
    """The README's picture."""
    from sim.scenes.greenhouse.baseline import LAWS

    torch.set_num_threads(1)
    weather, config = "bleiswijk-2014", scene_entry("greenhouse/lettuce").config
    try:
        catalogue.load(weather, "test")
    except BadInput:
        weather = "bundled"
    config = dataclasses.replace(config, weather=weather, start_days=(40.0, 40.0), forecast="none")
    laws = {name: (lambda env, law=LAWS[key]: _blind(law(env))) for name, key in _SHOWN.items()}
    make = lambda: make_env("greenhouse/lettuce", 1, family="nominal", seed=0, config=config)  # noqa: E731
    draw_season(out, make, laws, f"greenhouse/lettuce, 40 days from 9 February, weather {weather}")


_SHOWN = {"tuned set points": "rule", "grower's set points": "grower"}


def _blind(act: Callable[[], Tensor]) -> Law:
    """A law that reads the environment itself."""
    return lambda obs: act()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m sim.scenes.greenhouse.picture OUT.png")
    main(Path(sys.argv[1]))
