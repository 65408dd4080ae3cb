"""Rigid motions of foreign files, 4 x 4 in mm, as poses in m."""

import numpy as np
from numpy.typing import NDArray

from hardware.geometry import quat_from_matrix
from hardware.log.table import Column, Table

RIGID = 2e-3
"""Largest deviation of R R^T from the identity that still is a rotation printed with six digits."""


def pose_table(topic: str, parent: str, child: str, t_ns: NDArray[np.int64], matrix_mm: NDArray[np.float64]) -> Table:
    """Poses (T, 4, 4) of `child` in `parent` as geometry_msgs/TransformStamped.

    Where they are no rigid motions (they may hold the spacing of pixels), matrices in mm, row by row.
    """
    rotation = matrix_mm[:, :3, :3]
    off = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max(initial=0.0)
    if not off <= RIGID or np.linalg.det(rotation).min(initial=1.0) < 0:
        return Table(topic, t_ns, {"matrix": Column(matrix_mm.reshape(-1, 16), "mm", f"{child} in {parent}")})
    quat_wxyz = quat_from_matrix(rotation)
    columns = {f"transform.translation.{a}": Column(matrix_mm[:, i, 3] * 1e-3, "m") for i, a in enumerate("xyz")}
    columns |= {f"transform.rotation.{a}": Column(quat_wxyz[:, i], "1") for i, a in enumerate("wxyz")}
    constants = {"header.frame_id": parent, "child_frame_id": child}
    return Table(topic, t_ns, columns, "geometry_msgs/msg/TransformStamped", constants)
