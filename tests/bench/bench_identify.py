"""Known truths: random parameters into the emulator's world, recorded through the emulator, identified from the log.

    python tests/bench/bench_identify.py quadrotor --mode rotor_thrust --truths 20 --json out.json
    python tests/bench/bench_identify.py greenhouse --truths 20

Prints how many identified parameters hold the truth in their 95 % interval, and how wide the intervals are.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from support.excited_flight import random_truth, record_flight
from support.excited_greenhouse import random_house, record_days

from hardware.spec import load_spec
from sim.identify.logs import read_recording
from sim.identify.run import identify
from sim.identify.windows import split
from sim.registry import scene_entry


def recover(scene: str, mode: str, seed: int, folder: Path) -> dict[str, Any]:
    """One truth: recorded, identified, compared."""
    rng = np.random.default_rng(seed)
    if scene == "quadrotor":
        truth, scene_id, robot = random_truth(rng), "quadrotor/hover", "crazyflie"
        record_flight(folder / "log", truth, mode=mode, seconds=15.0, seed=seed)
        known = {"mass": truth["mass"]}
    else:
        truth, scene_id, robot = random_house(rng), "greenhouse/lettuce", "greenhouse_plc"
        record_days(folder / "log", truth, days=5.0, seed=seed)
        known = {}
    entry = scene_entry(scene_id)
    assert entry.rollout is not None
    rollout = entry.rollout(mode=mode, config=entry.config)
    recording = read_recording(folder / "log", load_spec(robot), rollout, mode)
    begin = time.process_time()
    found = identify(rollout, split(rollout, [recording.track]), known=known, seed=seed)
    rows = [
        {
            "name": e.name, "truth": truth[e.name], "fit": e.fit, "low": e.low, "high": e.high,
            "identified": e.identified, "reason": e.reason, "inside": e.low <= truth[e.name] <= e.high,
            "width": (e.high - e.low) / abs(truth[e.name]),
        }
        for e in found.estimates
        if e.name in truth
    ]  # fmt: skip
    return {
        "seed": seed, "cpu_s": time.process_time() - begin, "rejection": found.held_out.rejection, "rows": rows
    }  # fmt: skip


def main() -> None:
    """Runs all truths and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", choices=["quadrotor", "greenhouse"])
    parser.add_argument("--mode", default="")
    parser.add_argument("--truths", type=int, default=20)
    parser.add_argument("--first", type=int, default=100, help="first seed")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    mode = args.mode or ("rotor_thrust" if args.scene == "quadrotor" else "direct")
    runs = []
    for seed in range(args.first, args.first + args.truths):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(recover(args.scene, mode, seed, Path(folder)))
        outside = [r["name"] for r in runs[-1]["rows"] if r["identified"] and not r["inside"]]
        print(f"truth {seed}: outside {outside or 'none'}, {runs[-1]['cpu_s']:.1f} CPU-s", flush=True)
    rows = [r for run in runs for r in run["rows"]]
    known = [r for r in rows if r["identified"]]
    print(f"{args.scene} {mode}: {len(runs)} truths, {len(known)} of {len(rows)} parameters identified")
    print(f"truth inside the 95 % interval: {np.mean([r['inside'] for r in known]):.1%}")
    print(f"median width of the interval: {np.median([r['width'] for r in known]):.2%} of the value")
    print(f"rejected models: {sum(bool(r['rejection']) for r in runs)}")
    for name in dict.fromkeys(r["name"] for r in rows):
        own = [r for r in rows if r["name"] == name]
        held = [r for r in own if r["identified"]]
        inside = np.mean([r["inside"] for r in held]) if held else float("nan")
        width = np.median([r["width"] for r in held]) if held else float("nan")
        print(f"  {name:18} identified {len(held):2} of {len(own)}, inside {inside:.0%}, median width {width:.2%}")
    print(f"load average {os.getloadavg()[0]:.1f}, {torch.get_num_threads()} thread")
    if args.json:
        args.json.write_text(json.dumps(runs, indent=1))


if __name__ == "__main__":
    main()
