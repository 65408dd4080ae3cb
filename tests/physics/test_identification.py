"""Identification against truths that are known: injected parameters, wrong models, data that show nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hardware.errors import BadInput
from sim.identify.coverage import coverage
from sim.identify.fit import PRIOR_STD, Problem, cost_of, descend, first_noise, linearized, unknowns
from sim.identify.judge import Estimate
from sim.identify.propose import Provenance, diff, proposal, write
from sim.identify.rollout import difference, moved
from sim.identify.run import Identified, identify
from sim.identify.servo import PARAMS, ServoRollout, held
from sim.identify.windows import Marked, check, split
from sim.ranges import read_ranges
from sim.registry import ranges_path
from sim.replay import Track
from sim.scenes.quadrotor.rollout import in_force

TRUTH = {"stiffness": 900.0, "damping": 22.0, "friction": 12.0, "offset": 0.05, "delay": 0.012}
NOISE_RAD = 1e-3
RATE_HZ = 100.0


def recording(truth: dict[str, float] | None = None, *, seconds: float = 8.0, seed: int = 0) -> Track:
    """A servo that follows random steps, measured with white noise."""
    rng, rollout = np.random.default_rng(seed), ServoRollout(RATE_HZ)
    count = round(seconds * RATE_HZ)
    steps = np.repeat(rng.uniform(-0.6, 0.6, count // 10 + 2), 10)[: count + rollout.history]
    truth = truth or TRUTH
    params = torch.tensor([[truth[n]] for n in rollout.params], dtype=torch.float64)
    start = {"position": torch.full((1, 1), truth["offset"] + steps[rollout.history], dtype=torch.float64)}
    commands = torch.tensor(steps[None, :, None])
    still = -(commands[:, rollout.history, 0] - commands[:, rollout.history - 1, 0])[:, None] * RATE_HZ
    path = rollout(params, start, still, commands, {})["position"][0].numpy()
    measured = path[:-1] + rng.normal(0.0, NOISE_RAD, (count, 1))
    return Track(1.0 / RATE_HZ, {"position": measured}, steps[rollout.history :, None])


def found_in(track: Track, **more: object) -> Identified:
    rollout = ServoRollout(RATE_HZ)
    return identify(rollout, split(rollout, [track]), known={}, **more)  # type: ignore[arg-type]


def test_a_servo_is_recovered_inside_its_intervals() -> None:
    """Known truth: three random servos; at least nine in ten identified parameters hold it, and none is far off."""
    inside, widths = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        truth = {
            "stiffness": rng.uniform(400.0, 2000.0),
            "damping": rng.uniform(15.0, 40.0),
            "friction": rng.uniform(5.0, 20.0),
            "offset": rng.uniform(-0.1, 0.1),
            "delay": rng.uniform(0.005, 0.03),
        }
        found = found_in(recording(truth, seed=seed))
        assert found.held_out.rejection == ""
        assert found.first_delay_s == pytest.approx(truth["delay"], abs=0.01)
        for e in found.estimates:
            assert e.identified, f"{e.name}: {e.reason}"
            inside.append(e.low <= truth[e.name] <= e.high)
            widths.append((e.high - e.low) / abs(truth[e.name]))
            assert e.fit == pytest.approx(truth[e.name], rel=0.1, abs=2e-3)
    assert np.mean(inside) >= 0.9
    assert np.median(widths) <= 0.3


@pytest.mark.parametrize("wrong", ["sign", "unit", "joint"])
def test_wrong_models_are_rejected(wrong: str) -> None:
    """A command of the wrong sign, in degrees, or of another joint: one line that says what to check."""
    track = recording()
    commands = {
        "sign": -track.commands,
        "unit": np.rad2deg(track.commands),
        "joint": recording(seed=9).commands,
    }[wrong]
    found = found_in(track._replace(commands=commands))
    assert "check the mapping, unit and sign" in found.held_out.rejection


def test_what_does_not_show_is_not_identified() -> None:
    """A servo that hardly moves within its friction: the prior stays, with a reason for each parameter."""
    track = recording(seconds=4.0)
    rng = np.random.default_rng(0)
    still = Track(
        track.dt_s,
        {"position": 0.05 + 0.002 * rng.standard_normal(track.commands.shape)},
        1e-3 * track.commands,
    )
    found = found_in(still)
    dynamic = [e for e in found.estimates if e.name in ("stiffness", "damping", "friction", "delay")]
    assert not any(e.identified for e in dynamic)
    assert all(e.reason for e in dynamic)


def test_stiffness_and_damping_of_a_slow_servo_are_collinear() -> None:
    """Far overdamped, only their ratio shows; both stay at the prior, and the reason names the partner."""
    found = found_in(recording(TRUTH | {"stiffness": 3000.0, "damping": 300.0, "friction": 0.5}))
    named = {e.name: e for e in found.estimates}
    assert "collinear with" in named["stiffness"].reason
    ratio = named["damping"].fit / named["stiffness"].fit
    assert ratio == pytest.approx(0.1, rel=0.05)


def test_evolution_finds_what_descents_find() -> None:
    """CMA-ES, then a descent: the same optimum as descents from several starts."""
    pytest.importorskip("cma")
    track = recording(seconds=6.0)
    by_cma = {e.name: e for e in found_in(track, search="cma").estimates}
    for e in found_in(track, search="gradient").estimates:
        assert by_cma[e.name].fit == pytest.approx(e.fit, rel=2e-2, abs=1e-3)


def test_the_reduced_gradient_is_the_costs_slope() -> None:
    """Finite differences of the cost along the path that the starts take: what eliminating them promises."""
    rollout = ServoRollout(RATE_HZ)
    problem = Problem(rollout, split(rollout, [recording(seconds=4.0)]).train, unknowns(PARAMS, {}), {})
    noise = first_noise(problem)
    unit = problem.start_unit + 0.01
    starts = descend(problem, unit.numpy(), problem.zero_starts(), noise, iterations=20, fixed=True).starts
    normal = linearized(problem, unit, starts, noise)
    for j in range(len(unit)):
        step = torch.zeros_like(unit)
        step[j] = 1e-4
        slope = 0.0
        for sign in (1.0, -1.0):
            along = starts + sign * torch.tensor(normal.back[1] @ step.numpy())
            tried = unit + sign * step
            prior = 0.5 * float((((tried - problem.start_unit) / PRIOR_STD) ** 2).sum())
            slope += sign * (float(cost_of(problem, tried[None], along[None], noise)[0]) - prior) / 2e-4
        assert slope == pytest.approx(normal.gradient.sum(0)[j], rel=3e-2, abs=1.0)


def test_small_changes_of_attitudes() -> None:
    """`difference` undoes `moved`; a quarter turn about z has the length pi / 2."""
    generator = torch.Generator().manual_seed(0)
    quat = torch.randn((50, 4), generator=generator, dtype=torch.float64)
    quat = quat / torch.linalg.vector_norm(quat, dim=1, keepdim=True)
    change = 1e-3 * torch.randn((50, 3), generator=generator, dtype=torch.float64)
    back = difference("quat_wxyz", moved("quat_wxyz", quat, change), quat)
    torch.testing.assert_close(back, change, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(difference("quat_wxyz", -quat, quat), torch.zeros_like(change))
    quarter = torch.tensor([np.cos(np.pi / 4), 0.0, 0.0, np.sin(np.pi / 4)], dtype=torch.float64)
    unit = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    expected = torch.tensor([0.0, 0.0, np.pi / 2], dtype=torch.float64)
    torch.testing.assert_close(difference("quat_wxyz", quarter, unit), expected)


def test_commands_in_force_by_hand() -> None:
    """Held commands 0, 1, 2, 3, late by 0.3 periods: the mean over [2, 2.5) is 0.6 of the old one, 0.4 of the new."""
    wanted = torch.arange(4.0, dtype=torch.float64)[:, None, None]
    delay = torch.tensor([0.3], dtype=torch.float64)
    assert in_force(wanted, 2.0, delay, width=0.5).item() == pytest.approx(0.6 * 1.0 + 0.4 * 2.0)
    assert in_force(wanted, 2.0, torch.tensor([0.0], dtype=torch.float64), width=0.5).item() == 2.0
    assert in_force(wanted, 2.5, torch.tensor([1.5], dtype=torch.float64), width=0.5).item() == 1.0
    assert held(wanted[:, :, 0].T, torch.tensor([1.25], dtype=torch.float64)).item() == 1.25


def test_poor_data_are_refused_with_reasons() -> None:
    """Slow, broken, short, unexcited, frozen and NaN recordings: each its own line."""
    rollout, track = ServoRollout(RATE_HZ), recording(seconds=4.0)
    t_ns = np.arange(len(track.commands), dtype=np.int64) * 10_000_000
    parts = [("joint", -1.0, 1.0)]
    assert check(rollout, track, t_ns, parts).refusals == []
    assert "states come every" in check(rollout, track, t_ns[::10], parts).refusals[0]
    gap = np.concatenate([t_ns[:50], t_ns[100:150], t_ns[200:250], t_ns[300:]])
    many = np.concatenate([np.arange(20) + 100 * i for i in range(8)]) * 10_000_000
    assert any("gaps" in r for r in check(rollout, track, many, parts).refusals)
    assert check(rollout, track, gap, parts).gaps == 3
    short = Track(track.dt_s, {"position": track.signals["position"][:150]}, track.commands[:150])
    assert "expected at least" in check(rollout, short, t_ns[:150], parts).refusals[0]
    assert "hardly move" in check(rollout, track._replace(commands=0.001 * track.commands), t_ns, parts).refusals[0]
    frozen = track._replace(signals={"position": np.ones_like(track.signals["position"])})
    assert "never changes" in check(rollout, frozen, t_ns, parts).refusals[0]
    holes = track._replace(signals={"position": np.where(t_ns[:, None] == 0, np.nan, track.signals["position"])})
    assert any("NaN" in r for r in check(rollout, holes, t_ns, parts).refusals)


def test_marks_decide_the_windows() -> None:
    """Only marked stretches are used; held-out ones are kept apart; excluded ones are nobody's."""
    rollout, track = ServoRollout(RATE_HZ), recording()
    marks = [Marked(0, 0.5, 5.5, held_out=False), Marked(0, 6.0, 8.0, held_out=True)]
    chosen = split(rollout, [track], marks, [Marked(0, 3.0, 3.4, held_out=False)])
    assert chosen.rule == "annotated sysid windows"
    begin, end = chosen.train.start_s, chosen.train.start_s + rollout.window_s
    assert np.all((begin >= 0.5) & (end <= 5.5) & ((end <= 3.0) | (begin >= 3.4)))
    assert np.all(chosen.held_out.start_s >= 6.0)
    with pytest.raises(BadInput, match="mark longer sysid windows"):
        split(rollout, [track], [Marked(0, 1.0, 2.0, held_out=False)])


def test_ranges_that_cover_and_ranges_that_do_not() -> None:
    """A servo from within the ranges lies inside their band at least nine times in ten; a far one does not."""
    rollout = ServoRollout(RATE_HZ)
    near = {n: replace(p, low=0.8 * TRUTH[n], high=1.2 * TRUTH[n]) for n, p in PARAMS.items()}
    rollout.params = near
    windows = split(rollout, [recording()]).train
    assert coverage(rollout, windows).share["position"] > 0.85
    rollout.params = {n: replace(p, low=1.5 * TRUTH[n], high=2.0 * TRUTH[n]) for n, p in PARAMS.items()}
    assert coverage(rollout, windows).share["position"] < 0.6


def _estimate(name: str, fit: float, *, identified: bool = True) -> Estimate:
    return Estimate(name, "kg", (0.0, 1.0), fit, 0.9 * fit, 1.1 * fit, identified, "", 0.05 * fit, 0.04 * fit, 0.0)


PROVENANCE = Provenance([("flight", "sha256:0123456789abcdef")], "30 windows", "2026-11-20", "abc1234")


def test_a_proposal_changes_only_what_was_identified(tmp_path: Path) -> None:
    """Comments, order and every other entry stay byte for byte; the new file can be read and says where from."""
    path = tmp_path / "ranges.toml"
    original = ranges_path("quadrotor/hover").read_text()
    path.write_text(original.replace("nominal = 0.029\n", "nominal = 0.029 # weighed\n"))
    before, params = path.read_text(), read_ranges(path).params
    changes = {
        "mass": _estimate("mass", 0.031),
        "drag_xy": _estimate("drag_xy", 0.02),
        "drag_z": _estimate("drag_z", 0.02, identified=False),
    }
    after = proposal(before, changes, params, PROVENANCE)
    changed = [(a, b) for a, b in zip(before.splitlines(), after.splitlines(), strict=True) if a != b]
    assert len(changed) == 10
    assert ("nominal = 0.029 # weighed", "nominal = 0.031 # weighed") in changed
    write(path, after)
    new = read_ranges(path).params
    assert (new["mass"].nominal, new["mass"].low, new["mass"].high) == (0.031, 0.9, 1.1)
    assert (new["drag_xy"].low, new["drag_xy"].high) == (0.018, 0.022)
    assert new["mass"].source == "identified"
    assert "flight (0123456789ab)" in new["mass"].reference
    assert new["drag_z"] == params["drag_z"]
    text = diff(path, before, after)
    assert sum(line.startswith("-") and not line.startswith("---") for line in text.splitlines()) == 10
    assert diff(path, before, before) == ""
    assert not list(tmp_path.glob("*.part"))


def test_a_proposal_that_cannot_be_read_back_is_not_written(tmp_path: Path) -> None:
    """The file that was there stays."""
    path = tmp_path / "ranges.toml"
    path.write_text("[scene.x]\nsummary = 'a'\nrobot = 'b'\n")
    with pytest.raises(BadInput, match="cannot be read as TOML"):
        write(path, "[scene.x\n")
    assert path.read_text().startswith("[scene.x]")
    assert not list(tmp_path.glob("*.part"))
