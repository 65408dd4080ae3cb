"""One ONNX graph, run on one thread: observation groups in, commands out."""

from collections.abc import Mapping

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from hardware.errors import BadInput

OUTPUT = "command"
"""Name of the graph's one output, (N, J) in the command mode's SI units."""


class Graph:
    """An onnxruntime session that stays on the calling thread and never spins; raises BadInput for bytes it cannot run.

    Spinning and thread pools buy nothing for networks of this size, and on a robot's few cores they delay the loop
    that feeds them.
    """

    def __init__(self, model: bytes, source: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as e:  # onnxruntime raises many unrelated classes for a bad model
            raise BadInput(f"{source}: onnxruntime cannot run it: {str(e).splitlines()[0]}") from e
        self.input_sizes: dict[str, int] = {}
        for entry in self._session.get_inputs():
            if entry.type != "tensor(float)" or len(entry.shape) != 2 or not isinstance(entry.shape[1], int):
                raise BadInput(f"{source}: input '{entry.name}' is {entry.type} {entry.shape}; expected float (N, D)")
            self.input_sizes[entry.name] = entry.shape[1]
        outputs = [entry.name for entry in self._session.get_outputs()]
        if outputs != [OUTPUT]:
            raise BadInput(f"{source}: outputs {outputs}; expected ['{OUTPUT}']")

    def run(self, observation: Mapping[str, NDArray[np.floating]]) -> NDArray[np.float32]:
        """Commands (N, J) of observation groups name -> (N, D); each row's to the last bit the same in any company.

        A single row is run as two: products with one column are rounded in another order than those with several.
        """
        feeds = {name: np.ascontiguousarray(observation[name], dtype=np.float32) for name in self.input_sizes}
        alone = all(len(rows) == 1 for rows in feeds.values())
        if alone:
            feeds = {name: np.repeat(rows, 2, axis=0) for name, rows in feeds.items()}
        commands = np.asarray(self._session.run([OUTPUT], feeds)[0])
        return commands[:1] if alone else commands
