"""Episodes in robomimic's HDF5 layout, through h5py (extra `[export]`)."""

import json
from pathlib import Path

import numpy as np

from hardware.errors import BadInput
from hardware.log.pictures import camera_name, decoded
from hardware.log.steps import Demonstrations


def export_robomimic(found: Demonstrations, out: Path) -> dict[str, int]:
    """Writes `data/demo_<i>` with actions, rewards, dones, interventions, obs and next_obs; returns demo -> steps.

    A step needs the observation after it, so an episode of T rows gives T - 1 steps; the last row's reward counts on
    the last step. Actions are in the log's units. Raises BadInput where the file exists.
    """
    import h5py

    if out.exists():
        raise BadInput(f"{out} exists; give a new file")
    out.parent.mkdir(parents=True, exist_ok=True)
    steps = {}
    with h5py.File(out, "x") as file:
        data = file.create_group("data")
        for i, e in enumerate(found.episodes):
            count = len(e.t_ns) - 1
            demo = data.create_group(f"demo_{i}")
            demo.attrs.update({"num_samples": count, "outcome": e.outcome, "episode": e.id, "task": e.task})
            reward = e.reward[:-1].copy()
            reward[-1] += e.reward[-1]
            done = np.zeros(count, dtype=np.int64)
            done[-1] = e.terminated
            demo["actions"], demo["rewards"], demo["dones"] = e.action[:-1], reward, done
            demo["interventions"] = e.intervention[:-1]
            demo["obs/state"], demo["next_obs/state"] = e.observation[:-1], e.observation[1:]
            for topic, pictures in e.pictures.items():
                images = np.stack([decoded(p) for p in pictures])
                name = f"{camera_name(topic)}_image"
                for group, rows in (("obs", images[:-1]), ("next_obs", images[1:])):
                    demo.create_dataset(f"{group}/{name}", data=rows, compression="gzip", compression_opts=1)
            steps[f"demo_{i}"] = count
        data.attrs["total"] = sum(steps.values())
        environment = {"env_name": "robo_rl-log", "type": 2, "env_kwargs": {}}
        data.attrs["env_args"] = json.dumps(environment)
        data.attrs["observation_names"], data.attrs["action_names"] = found.observation, found.action
        data.attrs["units"], data.attrs["rate_hz"] = json.dumps(found.units), found.rate_hz
        data.attrs["source"] = found.source
        successes = [f"demo_{i}" for i, e in enumerate(found.episodes) if e.outcome == "success"]
        file["mask/train"] = np.array(list(steps), dtype="S")
        if successes:
            file["mask/success"] = np.array(successes, dtype="S")
    return steps
