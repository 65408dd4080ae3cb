"""Makes greenhouse_greenlight.npz: trajectories of GreenLight's model van_henten_2003, which the physics tests compare.

Run once, in an environment of its own:

    pip install greenlight==2.0.5
    python tests/support/greenhouse_greenlight.py

Six hours under constant weather and controls, integrated by BDF at a relative tolerance of 1e-9. GreenLight's vapour
balance leaves out ventilation (its file cites equation 11, which has it), so vents are shut in its model as shipped,
and open only where that one line is put right.
"""

import contextlib
import io
from pathlib import Path

import numpy as np

OUT = Path(__file__).with_name("greenhouse_greenlight.npz")
STATES = ("X_d", "X_c", "X_T", "X_h")
EQUATION_11 = {"phi_vent_h": {"definition": "(U_v + c_leak)*(X_h - V_h)"}}
CASES = {
    "sunny_shut": ({"V_rad": 350, "V_T": 8, "V_h": 6e-3, "V_c": 7.5e-4, "U_q": 20, "U_v": 0, "U_c": 8e-7}, {}),
    "night_heated": ({"V_rad": 0, "V_T": 2, "V_h": 4.5e-3, "V_c": 8e-4, "U_q": 80, "U_v": 0, "U_c": 0}, {}),
    "sunny_vented": (
        {"V_rad": 500, "V_T": 14, "V_h": 8e-3, "V_c": 7.4e-4, "U_q": 0, "U_v": 4e-3, "U_c": 1.2e-6},
        EQUATION_11,
    ),
}
"""Name -> constant inputs in GreenLight's names and units, and changed definitions."""
START = {"X_d": 0.05, "X_c": 0.001, "X_T": 15.0, "X_h": 0.008}
HOURS = 6


def main() -> None:
    """Runs GreenLight and stores what it did."""
    stored = {name: _run(inputs, changes) for name, (inputs, changes) in CASES.items()}
    keys = list(next(iter(CASES.values()))[0])
    inputs = np.array([[case[0][k] for k in keys] for case in CASES.values()], dtype=np.float64)
    np.savez_compressed(OUT, names=list(CASES), input_names=keys, inputs=inputs, states=np.stack(list(stored.values())))
    print(f"{OUT}: {OUT.stat().st_size} bytes, last states {[s[-1] for s in stored.values()]}")


def _run(inputs: dict[str, float], changes: dict[str, dict[str, str]]) -> np.ndarray:
    """States (T, 4) every 300 s."""
    from greenlight import GreenLight  # pyright: ignore[reportMissingImports]

    options = {"t_start": "0", "t_end": str(HOURS * 3600 + 300), "output_step": "300", "t_eval": "array"}
    options |= {"solver": "BDF", "rtol": "1e-9", "atol": "1e-12", "max_step": "300"}
    prompt = [
        "van_henten_2003/definition/greenhouse_evh2003.json",
        {name: {"definition": repr(float(value))} for name, value in inputs.items()},
        {name: {"init": repr(value)} for name, value in START.items()},
        changes,
        {"options": options},
    ]
    model = GreenLight(input_prompt=prompt)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        model.load()
        model.solve()
    solved = model.full_sol
    return solved[list(STATES)].to_numpy(dtype=np.float64)[: HOURS * 12 + 1]


if __name__ == "__main__":
    main()
