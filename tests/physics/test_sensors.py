"""Sensor models: exact delays, statistics of noise and dropouts."""

import torch

from sim.sensors import corrupted, delayed, dropouts, held, push, start_delay


def test_delay_is_exactly_as_many_steps_as_asked_for() -> None:
    steps = torch.tensor([0, 1, 2, 5])
    line = start_delay(torch.full((3, 4), -1.0), longest=5)
    for t in range(20):
        line = push(line, torch.full((3, 4), float(t)))
        seen = delayed(line, steps)
        expected = torch.where(t - steps >= 0, (t - steps).float(), -1.0)
        assert torch.equal(seen, expected.expand(3, 4)), t


def test_noise_has_the_given_deviation_and_bias() -> None:
    g = torch.Generator().manual_seed(2)
    deviation = torch.tensor([0.1, 2.0])[:, None]
    value = corrupted(
        torch.ones(2, 100_000), torch.randn(2, 100_000, generator=g), deviation, torch.tensor([[0.5], [0.0]])
    )
    assert torch.allclose(value.mean(1), torch.tensor([1.5, 1.0]), atol=0.03)
    assert torch.allclose(value.std(1), deviation[:, 0], rtol=0.02)


def test_a_dropped_sample_keeps_the_last_value() -> None:
    lost = dropouts(torch.tensor([0.0, 0.3, 1.0])[:, None].expand(3, 50_000), torch.Generator().manual_seed(1))
    share = lost.float().mean(1)
    assert share[0] == 0.0
    assert share[2] == 1.0
    assert abs(share[1] - 0.3) < 0.01
    value = held(torch.tensor([[2.0, 2.0]]), torch.tensor([[1.0, 1.0]]), torch.tensor([True, False]))
    assert torch.equal(value, torch.tensor([[1.0, 2.0]]))
