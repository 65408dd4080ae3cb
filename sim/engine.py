"""Ways to run a pure tensor function over and over: as it stands, replayed from a recording, or compiled.

A batched simulator's step is hundreds of small operations, and below some thousand environments Python's share of each
is larger than its arithmetic. `traced` records the operations once (a few hundredths of a second) and replays them
without Python, bit for bit the same; `compiled` hands them to torch.compile, which fuses them and takes 10 to 30 s.
"""

import warnings
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from hardware.errors import BadInput

Engine = Literal["eager", "traced", "compiled"]
TensorFunction = Callable[..., tuple[Tensor, ...]]


def prepared(function: TensorFunction, engine: Engine) -> TensorFunction:
    """The function (tensors to a tuple of tensors) as this engine runs it; raises BadInput for an unknown engine.

    The function must not branch on values: only on what stays the same from call to call.
    """
    if engine not in get_args(Engine):
        raise BadInput(f"engine '{engine}' not found; engines: {', '.join(get_args(Engine))}")
    if engine == "compiled":
        return torch.compile(function, dynamic=False)
    if engine == "traced" and hasattr(torch.jit, "trace"):
        return _Traced(function)
    return function


class _Traced:
    """Records at the first call, replays afterwards."""

    def __init__(self, function: TensorFunction) -> None:
        self._function, self._replay = function, None

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        if torch.compiler.is_compiling():  # part of something larger that is being fused
            return self._function(*tensors)
        if self._replay is None:
            self._replay = _record(self._function, tensors)
        return self._replay(*tensors)


def _record(function: TensorFunction, tensors: tuple[Tensor, ...]) -> Any:
    def recorded(*inputs: Tensor) -> tuple[Tensor, ...]:  # a partial has no name, which tracing wants
        return function(*inputs)

    # The profiling executor rewrites a graph after its first runs: the gradients of a resumed run would differ in their
    # last bits from those of a run that went on, and they take half as long again.
    if hasattr(torch._C, "_jit_set_profiling_executor"):
        torch._C._jit_set_profiling_executor(False)
    with warnings.catch_warnings(), torch.no_grad():
        # torch 2.13 calls tracing deprecated; its successors cost seconds to start, or run in Python again.
        warnings.simplefilter("ignore")
        return torch.jit.trace(recorded, tensors, check_trace=False)
