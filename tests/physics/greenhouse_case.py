"""What the greenhouse tests share: nominal coefficients and the stored trajectories of other codes."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sim.dynamics import greenhouse as model
from sim.ranges import read_ranges
from sim.registry import ranges_path

SUPPORT = Path(__file__).resolve().parents[1] / "support"
PACKAGE_NAMES = {
    "yield_factor": "yield_factor",
    "respiration_dry": "resp_dry",
    "respiration_co2": "resp_co2",
    "canopy_surface": "canopy_surface",
    "light_use": "light_use_eff",
    "diffusion_2": "photo_co2_1",
    "diffusion_1": "photo_co2_2",
    "diffusion_0": "photo_co2_3",
    "compensation": "co2_compensation",
    "volume_co2": "cap_co2",
    "volume_vapour": "cap_vapor",
    "heat_capacity": "cap_heat",
    "heat_capacity_air": "cap_heat_vent",
    "heat_transfer": "heat_transfer_cover",
    "solar_gain": "rad_heat_load",
    "leak": "leak",
    "transpiration": "transp_coeff",
    "saturation_1": "sat_vp1",
    "saturation_2": "sat_vp2",
    "saturation_3": "sat_vp3",
    "gas_constant": "gas_const_kmol",
    "kelvin": "temp_abs",
}
"""Our coefficient -> its name in lettuce-greenhouse-gym."""
STEP_S, PACKAGE_SUBSTEPS = 1800.0, 4
LARGEST = np.array([1.2, 7.5, 150.0])


def nominal(dtype: torch.dtype = torch.float64, **changed: float) -> Tensor:
    """(22, 1) coefficients of ranges.toml."""
    params = read_ranges(ranges_path("greenhouse/lettuce")).params
    values = [changed.get(name, params[name].nominal) for name in model.COEFFICIENTS]
    return torch.tensor(values, dtype=dtype)[:, None]


def reference() -> Mapping[str, NDArray[np.float64]]:
    """Trajectories of lettuce-greenhouse-gym; see tests/support/greenhouse_reference.py."""
    with np.load(SUPPORT / "greenhouse_reference.npz") as stored:
        return dict(stored)


def controls(action: NDArray[np.floating]) -> NDArray[np.float64]:
    """(T, 3) controls that the benchmark makes of actions (T, 3): changes of at most 10 % of the maximum."""
    u, rows = np.array([0.0, 0.0, 50.0]), []
    for a in action.astype(np.float64):
        u = np.clip(u + a * 0.1 * LARGEST, 0.0, LARGEST)
        rows.append(u)
    return np.array(rows)


def planes(values: NDArray[np.float64] | list[float]) -> Tensor:
    """(k, 1) of k numbers."""
    return torch.tensor(np.asarray(values), dtype=torch.float64)[:, None]
