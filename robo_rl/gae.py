"""Generalised advantage estimation with time-outs told apart from terminations."""

from torch import Tensor


def gae_(
    advantage: Tensor,
    *,
    reward: Tensor,
    value: Tensor,
    bootstrap: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """Writes the advantages (T, N) in place and returns them (Schulman et al. 2016, eq. 16).

    `reward`, `terminated`, `truncated` are (T, N); `value` is (T + 1, N); `bootstrap` (T, N) is the value of an
    episode's own last observation where it was truncated and zero elsewhere. The value that follows a step is 0
    after a termination, `bootstrap` after a time-out and V(next observation) otherwise; the trace ends at both kinds
    of end, because what follows belongs to another episode.
    """
    goes_on = (~(terminated | truncated)).to(reward.dtype)
    following = (value[1:] * goes_on).add_(bootstrap * (~terminated).to(reward.dtype))
    delta = following.mul_(gamma).add_(reward).sub_(value[:-1])
    decay = goes_on.mul_(gamma * gae_lambda)
    advantage[-1] = delta[-1]
    for t in range(reward.shape[0] - 2, -1, -1):
        advantage[t] = delta[t].addcmul_(decay[t], advantage[t + 1])
    return advantage
