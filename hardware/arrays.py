"""The array-API namespace of a value: the one place where array code learns whether it runs on numpy or on torch.

`array_api_compat.array_namespace` does the same for every library there is, but through cached look-ups that
`torch.compile` warns about when it traces them; here, known types are answered by one `isinstance` or one import.
"""

from typing import Any

import array_api_compat.numpy as numpy_namespace
import numpy as np
from array_api_compat import array_namespace


def namespace(x: Any) -> Any:
    """The array-API namespace that x belongs to; raises TypeError for a value that is no array."""
    if isinstance(x, (np.ndarray, np.generic)):
        return numpy_namespace
    if hasattr(x, "requires_grad"):  # a torch tensor, told without importing torch
        import array_api_compat.torch as torch_namespace

        return torch_namespace
    return array_namespace(x)


def constant(values: Any, like: Any) -> Any:
    """Numbers as an array of `like`'s namespace, dtype and device."""
    return namespace(like).asarray(values, dtype=like.dtype, device=like.device)
