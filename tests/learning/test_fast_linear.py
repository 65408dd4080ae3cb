"""oneDNN layers against torch's own, in value and gradient, eager and as a registered operator."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from robo_rl import fast_linear
from robo_rl.fast_linear import LinearFn

needs_onednn = pytest.mark.skipif(not fast_linear.available(), reason="this torch has no oneDNN linear operator")


def values_and_gradients(linear: LinearFn, rows: int, inputs: int, outputs: int) -> list[Tensor]:
    torch.manual_seed(rows + inputs)
    x, w, b = (torch.randn(s, requires_grad=True) for s in ((rows, inputs), (outputs, inputs), (outputs,)))
    y = linear(x, w, b)
    (y * torch.randn(rows, outputs)).sum().backward()
    return [y.detach(), *(p.grad for p in (x, w, b) if p.grad is not None)]


@needs_onednn
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(300, 36, 64), (300, 64, 36), (1, 3, 5), (257, 128, 1)])
@pytest.mark.parametrize("linear", [fast_linear.fast_linear, fast_linear._linear_op], ids=["eager", "operator"])
def test_values_and_gradients_equal_torchs(linear: LinearFn, rows: int, inputs: int, outputs: int) -> None:
    for ours, theirs in zip(
        values_and_gradients(linear, rows, inputs, outputs),
        values_and_gradients(F.linear, rows, inputs, outputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@needs_onednn
@pytest.mark.filterwarnings("ignore:Input #:UserWarning")
def test_gradients_by_finite_differences() -> None:
    """The operation is single precision: a coarse step, and tolerances that still see a wrong sign or transpose."""
    torch.manual_seed(0)
    parts = [torch.randn(s, requires_grad=True) for s in ((3, 4), (2, 4), (2,))]
    assert torch.autograd.gradcheck(
        fast_linear.fast_linear, parts, eps=1e-2, atol=1e-3, rtol=1e-3, nondet_tol=1e-6, raise_exception=True
    )


@needs_onednn
def test_registered_operator_passes_torchs_own_checks() -> None:
    parts = [torch.randn(s, requires_grad=True) for s in ((6, 4), (3, 4), (3,))]
    torch.library.opcheck(
        torch.ops.robo_rl.linear.default,
        parts,
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )


def test_choice_falls_back_where_the_operation_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(fast_linear, "onednn_product", broken)
    assert not fast_linear.available()
    assert fast_linear.choose("auto", 256, (64,), "cpu")[:2] == ("torch", F.linear)
    assert fast_linear.choose("onednn", 256, (64,), "cpu")[:2] == ("torch", F.linear)


def test_an_accelerator_keeps_torchs_product() -> None:
    assert fast_linear.choose("auto", 256, (64,), "cuda:0")[0] == "torch"
