"""Exported policies in the benchmark package itself: lettuce-greenhouse-gym 0.1.3, its own plant, weather and reward.

    python tests/bench/bench_lettuce_gym.py zoo:greenhouse-lettuce --draws 20

Nothing of our simulator takes part: the package's measurements become signals, the policy file says what they mean (its
fields) and what to do, and the package moves its actuators. Standard season: 40 days from 9 February 2014, Bleiswijk.
Needs `pip install lettuce-greenhouse-gym`.
"""

import argparse
import json
from importlib import resources
from pathlib import Path
from typing import Any

import lettuce_greenhouse_gym as gym
import numpy as np
from lettuce_greenhouse_gym import units
from numpy.typing import NDArray

from controllers.artifact import PolicyArtifact
from robo_rl.zoo import resolve

LEADS = 13
FILE = resources.files("lettuce_greenhouse_gym.data") / "outdoorWeatherWurGlas2014.csv"
WIND = np.loadtxt(str(FILE), delimiter=",", usecols=4)
"""m/s every 300 s from 10 January; the package reads the file but has no use for the wind."""


def signals(env: Any) -> dict[str, NDArray[np.float32]]:
    """What the greenhouse's PLC would report of the package's present state, (1, k) each."""
    crop, ppm, temperature, humidity = np.asarray(env.measurement(env.state)).ravel()
    radiation, co2, outside, vapour = env.weather_forecast(LEADS)
    weather = np.stack(
        [radiation, outside, 0.01 * units.vapour_density_to_rh(outside, vapour), units.co2_density_to_ppm(outside, co2)]
    )
    day = env._scenario.start_day + env._step_index * env.config.dt / 86400.0
    wind = WIND[round((day - 10.0) * 288.0)]
    season = [np.sin(2.0 * np.pi * day), np.cos(2.0 * np.pi * day), env._step_index / env.config.n_steps]
    row = lambda *values: np.array([values], dtype=np.float32)  # noqa: E731
    return {
        "air_temperature": row(temperature),
        "relative_humidity": row(0.01 * humidity),
        "co2": row(ppm),
        "crop_dry_weight": row(crop),
        "outdoor": row(*weather[:, 0], wind),
        "forecast": row(*weather.T.ravel()),
        "season": row(*season),
    }


def season(artifact: PolicyArtifact, env: Any, seed: int) -> dict[str, float]:
    """Return, profit and penalty of one season under the policy."""
    env.reset(seed=seed)
    memory = artifact.interface.start((1,), np.zeros(1, np.float32))
    memory = artifact.interface.remember(memory, np.array([env.control], np.float32))
    total = {"return": 0.0, "profit": 0.0, "penalty": 0.0}
    ended = False
    while not ended:
        obs, memory = artifact.interface.observe(signals(env), {}, memory)
        command = artifact.run({"policy": obs["policy"]})[0]
        _, reward, ended, _, info = env.step(env.encode_control(command.astype(np.float64)))
        memory = artifact.interface.remember(memory, np.array([env.control], np.float32))
        total["return"] += reward
        total["penalty"] += info["penalty"]
        total["profit"] += reward + info["penalty"]
    return total


def main() -> None:
    """Prints the season's return of each policy, without and with noise on every coefficient at every step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policies", nargs="+")
    parser.add_argument("--noise", type=float, default=0.05, help="half-width of the relative noise")
    parser.add_argument("--draws", type=int, default=0, help="seasons with noise")
    parser.add_argument("--table", type=Path, help="JSON file of all figures")
    args = parser.parse_args()
    found: dict[str, Any] = {}
    for name in args.policies:
        artifact = PolicyArtifact.load(resolve(name))
        plain = season(artifact, gym.LettuceGreenhouseEnv(), 0)
        print(f"{name}: return {plain['return']:.3f}, profit {plain['profit']:.3f}, penalty {plain['penalty']:.3f}")
        found[name] = {"plain": plain}
        if args.draws:
            base = gym.VanHentenLettuce().constants
            provider = gym.RandomizedParameterProvider.relative(base, args.noise, per_step=True)
            noisy = gym.LettuceGreenhouseEnv(parameter_provider=provider)
            returns = [season(artifact, noisy, seed)["return"] for seed in range(args.draws)]
            error = np.std(returns, ddof=1) / np.sqrt(len(returns)) if len(returns) > 1 else 0.0
            print(f"{name}: with noise {np.mean(returns):.3f} +- {error:.3f} (standard error, {len(returns)} seasons)")
            found[name]["noisy"] = returns
    if args.table:
        args.table.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
