"""Each row of the table from marks to rows, on a recording of twenty control steps with the arrays worked out by hand.

Episodes: steps 2 to 9 and 10 to 17; steps 0, 1, 18 and 19 lie outside.
"""

from pathlib import Path

import numpy as np
import pytest
from support.marked_log import HOVER, Marker, write_log
from support.pd_policy import SCALE

from hardware.errors import BadInput, NotFoundError
from robo_rl.datasets.fromlogs import from_logs
from robo_rl.datasets.purposes import Options
from robo_rl.datasets.transitions import DataSet, check, read, write

FIRST, SECOND = list(range(2, 10)), list(range(10, 18))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write_log(tmp_path / "flight")


def made(log: Path, purpose: str, *, rewards: tuple[str, ...] = ("auto",), **options: object) -> DataSet:
    data = from_logs([log], Options(purpose, **options), rewards=rewards)  # type: ignore[arg-type]
    check(data, "made")
    return data


def steps_of(data: DataSet) -> list[int]:
    """The steps that the rows came from, told by the roll that was sent."""
    return np.round(data.action[:, 0] * SCALE["roll"][0] / 0.01).astype(int).tolist()


def ends(data: DataSet, mask: np.ndarray) -> list[int]:
    return [s for s, there in zip(steps_of(data), mask, strict=True) if there]


def paid(data: DataSet) -> dict[int, float]:
    """Step -> reward, where there is one."""
    return {s: float(r) for s, r in zip(steps_of(data), data.reward, strict=True) if r != 0.0}


def test_rows_hold_what_was_seen_and_sent(log: Path) -> None:
    marker = Marker(log)
    marker.episode(2, 10, "success")
    data = made(log, "iql")
    assert steps_of(data) == FIRST
    assert data.card.dropped == {"outside the marked episodes": 12}
    x = 0.1 * np.arange(2, 10)
    np.testing.assert_allclose(data.obs[:, 0], 1.0 - x, atol=1e-6)  # position error, clipped at 1
    np.testing.assert_allclose(data.obs[:, 3], np.arange(2, 10), atol=1e-6)  # velocity
    np.testing.assert_allclose(data.next_obs[:, 0], 1.0 - x - 0.1, atol=1e-6)
    np.testing.assert_array_equal(data.obs[1:], data.next_obs[:-1])
    rolls = np.arange(2, 10) * 0.01 / 0.5
    np.testing.assert_allclose(data.action[:, 0], rolls, atol=1e-6)
    np.testing.assert_allclose(data.action[:, 3], (HOVER - 0.55) / 0.35, atol=1e-6)
    # The command fields show what was sent one and two steps before; the first row knows the step before its episode.
    np.testing.assert_allclose(data.obs[:, 12], rolls - 0.02, atol=1e-6)
    np.testing.assert_allclose(data.next_obs[:, 12], rolls, atol=1e-6)


def test_no_window_crosses_into_an_episode(log: Path) -> None:
    """The older of both velocities is the one of the step before, but in an episode's first row its own."""
    marker = Marker(log)
    marker.episode(2, 10)
    marker.episode(10, 18)
    data = made(log, "iql", rewards=("scene",))
    assert steps_of(data) == FIRST + SECOND
    older = data.obs[:, 6]
    assert older.tolist() == [2, 2, 3, 4, 5, 6, 7, 8, 10, 10, 11, 12, 13, 14, 15, 16]
    assert data.episode.tolist() == [0] * 8 + [1] * 8
    # What follows the last row of an episode is the state that came then, seen from within the episode.
    assert data.next_obs[7, [3, 6]].tolist() == [10.0, 9.0]


def test_episode_ends_terminate_only_where_the_outcome_is_final(log: Path) -> None:
    marker = Marker(log)
    marker.episode(2, 10, "success")
    marker.episode(10, 18, "aborted")
    for purpose in ("iql", "rlpd", "rlif", "h2o"):
        data = made(log, purpose, rewards=("sparse",))
        assert ends(data, data.terminated) == [9], purpose
        assert ends(data, data.truncated) == [17], purpose


def test_without_marks_a_stretch_is_one_episode_cut_where_the_recording_has_a_gap(tmp_path: Path) -> None:
    log = write_log(tmp_path / "flight", gap_before=12)
    data = made(log, "rlif")
    assert steps_of(data) == list(range(20))[:11] + list(range(12, 20))
    assert ends(data, data.truncated) == [10, 19]
    assert data.card.dropped == {"nothing recorded after it": 1}  # step 11: the next state is half a second later
    assert made(write_log(tmp_path / "short", extra_states=0), "rlif").card.dropped == {"nothing recorded after it": 1}


def test_outcomes_pay_on_the_last_step(log: Path) -> None:
    marker = Marker(log)
    marker.episode(2, 10, "success")
    marker.episode(10, 18, "failure")
    assert paid(made(log, "iql")) == {9: 1.0, 17: -1.0}
    assert paid(made(log, "rlpd", success=5.0, failure=-2.0)) == {9: 5.0, 17: -2.0}


def test_outcomes_filter_or_weigh_imitation(log: Path) -> None:
    marker = Marker(log)
    marker.episode(2, 10, "success")
    marker.episode(10, 18, "failure")
    filtered = made(log, "bc")
    assert steps_of(filtered) == FIRST
    assert filtered.card.dropped == {"outside the marked episodes": 4, "episode without success": 8}
    weighed = made(log, "bc", failure_weight=0.25)
    assert steps_of(weighed) == FIRST + SECOND
    assert weighed.weight.tolist() == [1.0] * 8 + [0.25] * 8


def test_outcomes_fill_the_buffers(log: Path) -> None:
    marker = Marker(log)
    marker.episode(2, 10, "success")
    marker.episode(10, 18, "failure")
    marker.range("intervention", 12, 15, "human")
    data = made(log, "rlpd")
    assert ends(data, data.extra["demo"]) == [*FIRST, 12, 13, 14]  # successes, and corrections wherever they are
    assert data.extra["online"].all()
    assert data.card.kept == {
        "rows": 16,
        "episodes": 2,
        "successes": 1,
        "failures": 1,
        "demo": 11,
        "online": 16,
        "interventions": 3,
    }


def test_a_log_without_a_policy_is_a_demonstration(tmp_path: Path) -> None:
    log = write_log(tmp_path / "flight", by_hand=range(20), goal=True)
    Marker(log).episode(2, 10)
    data = made(log, "rlpd", rewards=("scene",))
    assert steps_of(data) == FIRST
    np.testing.assert_allclose(data.obs[:, 12], np.arange(1, 9) * 0.02, atol=1e-6)
    assert data.extra["demo"].all()
    assert not data.extra["online"].any()
    assert steps_of(made(log, "hg-dagger")) == FIRST
    aimless = write_log(tmp_path / "aimless", by_hand=range(20))
    with pytest.raises(BadInput, match="no control steps of mode attitude_thrust of crazyflie were recorded"):
        made(aimless, "rlif")


def test_where_a_human_took_over_the_commands_sent_are_the_steps(tmp_path: Path) -> None:
    """The policy did not tick in steps 6 to 8; what was sent then counts only where a mark says who did it."""
    log = write_log(tmp_path / "flight", by_hand=range(6, 9))
    unmarked = made(log, "rlif")
    assert steps_of(unmarked) == [*range(6), *range(9, 20)]
    Marker(log).range("intervention", 6, 9, "human")
    data = made(log, "rlif")
    assert steps_of(data) == list(range(20))
    assert ends(data, data.intervention) == [6, 7, 8]
    assert paid(data) == {5: -1.0}
    np.testing.assert_allclose(data.obs[1:, 12], np.arange(19) * 0.02, atol=1e-6)  # one flight, without a seam


def test_a_policy_that_ticks_on_does_not_pass_for_the_human_who_steers(tmp_path: Path) -> None:
    """Steps 6 to 8 hold the policy's ticks and, a millisecond later, a human's commands, which decide where marked."""
    log = write_log(tmp_path / "flight", beside=range(6, 9))
    assert not made(log, "rlif").action[:, 1].any()
    Marker(log).range("intervention", 6, 9, "human")
    data = made(log, "rlif")
    assert steps_of(data) == list(range(20))
    pitched = np.zeros(20)
    pitched[6:9] = 0.3 / 0.5  # in action units
    np.testing.assert_allclose(data.action[:, 1], pitched, atol=1e-6)


def test_hg_dagger_learns_the_humans_actions_only(log: Path) -> None:
    marker = Marker(log)
    marker.episode(2, 10, "failure")
    marker.range("intervention", 4, 7, "human")
    marker.range("intervention", 8, 9, "safety")
    data = made(log, "hg-dagger")
    assert steps_of(data) == [4, 5, 6]
    assert data.intervention.all()
    assert ends(data, data.truncated) == [6]
    assert data.card.dropped == {"outside the marked episodes": 12, "not a human's action": 5}
    all_of_it = made(log, "bc", failure_weight=1.0)
    assert ends(all_of_it, all_of_it.intervention) == [4, 5, 6, 8]


def test_rlif_pays_the_step_that_made_somebody_take_over(log: Path) -> None:
    marker = Marker(log)
    marker.episode(2, 10, "success")
    marker.episode(10, 18, "failure")
    marker.range("intervention", 4, 7, "human")
    marker.range("intervention", 8, 9, "supervisor")
    marker.range("intervention", 10, 12, "human")  # from the first step on: nothing of this episode caused it
    data = made(log, "rlif")
    assert paid(data) == {3: -1.0, 7: -1.0}
    assert data.card.kept["triggers"] == 2
    assert ends(data, data.intervention) == [4, 5, 6, 8, 10, 11]


def test_reward_marks_are_dense_rewards(log: Path) -> None:
    marker = Marker(log)
    marker.episode(2, 10, "success")
    marker.range("reward", 3, 5, value={"reward": 0.5})
    marker.instant("reward", 4, value={"reward": 0.25})
    marker.instant("reward", 15, value={"reward": 9.0})  # outside
    assert paid(made(log, "iql")) == {3: 0.5, 4: 0.75, 9: 1.0}
    assert paid(made(log, "rlpd", rewards=("marks",))) == {3: 0.5, 4: 0.75}
    assert paid(made(log, "h2o")) == {3: 0.5, 4: 0.75}  # dense rewards only


def test_subtasks_condition_imitation_and_pay_progress(log: Path) -> None:
    marker = Marker(log)
    marker.episode(2, 10, "success")
    marker.range("subtask", 2, 6, "rise")
    marker.range("subtask", 6, 10, "hold")
    data = made(log, "bc")
    assert data.extra["subtask"].tolist() == [0] * 4 + [1] * 4
    assert data.card.settings["subtasks"] == ["rise", "hold"]
    progress = made(log, "iql", rewards=("progress",))
    # Each of the two takes four steps: an eighth of the task per step; marks lie half a step before their first one.
    np.testing.assert_allclose(progress.reward[:-1], 0.125, atol=1e-6)
    assert progress.reward.sum() == pytest.approx(1.0 - 0.0625)


def test_the_scenes_own_reward_where_marks_offer_none(log: Path) -> None:
    Marker(log).episode(2, 10)
    data = made(log, "iql")
    assert data.card.settings["rewards"] == ["scene"]
    # 0.1 (0.5 (1 - d / 2) + 0.5 exp(-20 d) + close (0.5 - 0.15 |v|) - 0.05 da^2), bounded below by -0.1; d = error.
    d, v, change = 1.0 - 0.1 * np.arange(3, 11), np.arange(3.0, 11.0), 0.02
    close = np.exp(-((d / 0.3) ** 2))
    want = 0.5 * (1 - 0.5 * d) + 0.5 * np.exp(-d / 0.05) + close * (0.5 - 0.15 * v) - 0.05 * change**2
    np.testing.assert_allclose(data.reward, 0.1 * np.maximum(want, -1.0), atol=1e-5)
    with pytest.raises(NotFoundError, match=r"reward 'dense' not found; known: auto, marks, progress, scene, sparse"):
        made(log, "iql", rewards=("dense",))


@pytest.mark.parametrize("purpose", ["bc", "hg-dagger", "iql", "rlpd", "rlif", "h2o", "reward"])
def test_exclusions_mask_every_consumer_and_split_the_episode(log: Path, purpose: str) -> None:
    """Steps 5 and 6 are excluded; step 4 ends in what step 5 saw, so it goes too."""
    marker = Marker(log)
    marker.episode(2, 10, "success")
    marker.range("exclude", 5, 7, value={"reason": "glitch"})
    marker.range("intervention", 2, 10, "human")
    data = made(log, purpose)
    assert steps_of(data) == [2, 3, 7, 8, 9]
    assert data.episode.tolist() == [0, 0, 1, 1, 1]
    assert ends(data, data.truncated) == [3]
    assert ends(data, data.terminated) == [9]
    assert data.card.dropped == {"outside the marked episodes": 12, "excluded": 3}
    assert data.obs[:, 6].tolist() == [2, 2, 7, 7, 8]  # nor does a history reach into it


def test_a_crash_is_the_end(log: Path) -> None:
    marker = Marker(log)
    marker.episode(2, 10, "failure")
    marker.instant("event", 6, "crash")
    marker.instant("event", 3, "contact")  # nothing ends by touching something
    for purpose in ("iql", "rlpd"):
        data = made(log, purpose)
        assert steps_of(data) == [2, 3, 4, 5, 6]
        assert ends(data, data.terminated) == [6]
        assert paid(data) == {6: -1.0}
        assert data.card.dropped == {"outside the marked episodes": 12, "after a crash or e-stop": 3}
    h2o = made(log, "h2o", rewards=("scene",))
    assert ends(h2o, h2o.terminated) == [6]
    bc = made(log, "bc", failure_weight=1.0)
    assert steps_of(bc) == [2, 3, 4, 5]
    assert ends(bc, bc.truncated) == [5]
    negative = made(log, "reward")
    assert negative.extra["label"].tolist() == [-1, -1, -1, -1, 0]


def test_for_rlif_a_crash_counts_where_safety_took_over(log: Path) -> None:
    marker = Marker(log)
    marker.episode(2, 10)
    crash = marker.instant("event", 6, "crash")
    alone = made(log, "rlif")
    assert (paid(alone), ends(alone, alone.terminated)) == ({}, [6])
    taken = marker.range("intervention", 7, 9, "safety")
    data = made(log, "rlif")
    assert (paid(data), ends(data, data.terminated)) == ({6: -1.0}, [])
    assert steps_of(data) == [2, 3, 4, 5, 6, 7, 8]  # what safety did stays, what came after it does not
    marker.store.delete(crash.id)
    marker.store.delete(taken.id)
    marker.instant("event", 6, "estop")  # an e-stop is safety taking over
    data = made(log, "rlif")
    assert (paid(data), steps_of(data), ends(data, data.truncated)) == ({6: -1.0}, [2, 3, 4, 5, 6], [6])


def test_a_reward_model_gets_the_end_of_successes_and_what_preceded_interventions(log: Path) -> None:
    marker = Marker(log)
    marker.episode(2, 10, "success")
    marker.episode(10, 18, "failure")
    marker.range("intervention", 14, 16, "human")
    data = made(log, "reward", frames=3)
    label = dict(zip(steps_of(data), data.extra["label"].tolist(), strict=True))
    assert [s for s, v in label.items() if v == 1] == [7, 8, 9]
    assert [s for s, v in label.items() if v == 0] == [11, 12, 13]
    assert data.card.kept["positives"] == data.card.kept["negatives"] == 3


def test_drafts_and_rejected_marks_say_nothing(log: Path) -> None:
    marker = Marker(log)
    marker.episode(2, 10, "success")
    marker.store.add("event", marker.store.marks()[0].t0_ns + 30_000_000, label="crash", status="draft")
    assert len(made(log, "iql")) == 8
    assert len(from_logs([log], Options("iql"), drafts=True)) < 8


def test_header_stamps_place_marks_by_the_state_they_were_set_on(log: Path) -> None:
    """A range in header stamps from step 4 to 6 covers steps 4 and 5, whatever the log times are."""
    from support.marked_log import state_ns

    marker = Marker(log)
    marker.store.add("intervention", state_ns(4), state_ns(6), label="human", time_base="header_stamp")
    data = made(log, "rlif")
    assert ends(data, data.intervention) == [4, 5]
    marker.store.add("exclude", state_ns(4), state_ns(6), time_base="publish_time")
    with pytest.raises(BadInput, match="is in publish_time; expected log_time or header_stamp"):
        made(log, "rlif")


def test_what_cannot_be_made_is_said_in_one_line(log: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="purpose 'ppo' not found; known: bc, h2o, hg-dagger"):
        made(log, "ppo")
    marker = Marker(log)
    marker.episode(2, 10)
    marker.episode(8, 14)
    with pytest.raises(BadInput, match="overlaps the one before it"):
        made(log, "iql")
    with pytest.raises(BadInput, match="no log given"):
        from_logs([], Options())


def test_several_logs_make_one_set(tmp_path: Path) -> None:
    logs = [write_log(tmp_path / name) for name in ("a", "b")]
    Marker(logs[0]).episode(2, 10, "success")
    Marker(logs[1]).episode(10, 18, "failure")
    data = from_logs(logs, Options("iql"))
    assert steps_of(data) == FIRST + SECOND
    assert data.extra["log"].tolist() == [0] * 8 + [1] * 8
    assert data.card.kept == {"rows": 16, "episodes": 2, "successes": 1, "failures": 1, "interventions": 0}
    assert data.card.dropped == {"outside the marked episodes": 24}
    assert [s["content_hash"][:7] for s in data.card.sources] == ["sha256:"] * 2
    assert read(write(tmp_path / "set", data)).card.settings == data.card.settings
