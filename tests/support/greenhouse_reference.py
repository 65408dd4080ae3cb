"""Makes greenhouse_reference.npz: trajectories of the package lettuce-greenhouse-gym, which the physics tests compare.

Run once, in an environment of its own:

    pip install lettuce-greenhouse-gym==0.1.3
    python tests/support/greenhouse_reference.py

One standard season under random actions (1920 steps of 1800 s from 9 February 2014, Bleiswijk), one day under the
package's noise on all coefficients, and the returns of its simple controllers.
"""

from pathlib import Path
from typing import Any

import numpy as np

OUT = Path(__file__).with_name("greenhouse_reference.npz")
NOISY_STEPS = 48
COOL_SEED = 3
"""Of the first seeds, one whose greenhouse stays below 42 degC: beyond, the package's photosynthesis turns negative."""


def main() -> None:
    """Runs the package and stores what it did."""
    import lettuce_greenhouse_gym as lgg

    env = lgg.LettuceGreenhouseEnv()
    season = _season(env, seed=COOL_SEED, steps=env.config.n_steps)
    provider = lgg.RandomizedParameterProvider.relative(env.model.constants, 0.05, per_step=True)
    noisy = _season(lgg.LettuceGreenhouseEnv(parameter_provider=provider), seed=1, steps=NOISY_STEPS)
    returns = {
        "off": _controlled(env, lgg.baselines.AllOff()),
        "hold": _controlled(env, lgg.baselines.ConstantControl([0.0, 0.0, 50.0])),
        "grower": _controlled(env, lgg.baselines.GrowerHeuristic()),
        "random": float(_season(env, seed=0, steps=env.config.n_steps)["reward"].sum()),
    }
    np.savez_compressed(
        OUT,
        action=season["action"],
        state=season["state"],
        weather=season["weather"],
        reward=season["reward"],
        noisy_action=noisy["action"],
        noisy_state=noisy["state"],
        noisy_coefficients=noisy["coefficients"],
        coefficient_names=np.array(env.model.constants.names),
        return_names=np.array(list(returns)),
        returns=np.array(list(returns.values())),
        version=lgg.__version__,
    )
    print(f"{OUT}: {OUT.stat().st_size} bytes; returns {returns}")


def _season(env: Any, seed: int, steps: int) -> dict[str, np.ndarray]:
    """States, weather and rewards under uniform random actions."""
    rng = np.random.default_rng(seed)
    action = rng.uniform(-1.0, 1.0, (steps, 3)).astype(np.float32)
    env.reset(seed=seed)
    state, weather, reward, coefficients = [env.state], [], [], []
    for a in action:
        weather.append(env.weather_forecast(1)[:, 0])
        _, r, _, _, info = env.step(a)
        reward.append(r)
        coefficients.append(info["params_used"])
        state.append(env.state)
    found = {"action": action, "state": state, "weather": weather, "reward": reward, "coefficients": coefficients}
    return {name: np.array(value) for name, value in found.items()}


def _controlled(env: Any, controller: Any) -> float:
    """Return of a season under one of the package's controllers."""
    from lettuce_greenhouse_gym.baselines.base import run_episode

    return float(run_episode(env, controller, seed=0).total_return)


if __name__ == "__main__":
    main()
