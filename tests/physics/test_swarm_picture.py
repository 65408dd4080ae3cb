"""Pictures of a swarm's flight: where things are seen, gaps worked out by hand, and files that are what they say."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from hardware.errors import BadInput
from sim.registry import make_env, scene_entry
from sim.scenes.quadrotor.swarm import picture
from sim.scenes.quadrotor.swarm.contacts import ARM_M
from sim.scenes.quadrotor.swarm.flight import Flight, gaps, outcome, record
from sim.scenes.quadrotor.swarm.stage import ALARM, Stage, View, overhead, palette_of_the_stage, perspective

ROOM = np.array([10.0, 10.0, 10.0])


def a_flight(drones: int = 3, moments: int = 151) -> Flight:
    """Level drones that fly along x between two obstacles, 10 ms apart; one has a contact after half a second."""
    times = np.arange(moments) / 100.0
    start = np.stack([np.full(drones, -3.0), np.linspace(-3, 3, drones), np.full(drones, 1.5)], 1)
    positions = start + times[:, None, None] * [2.0, 0.0, 0.0]
    contacts = np.zeros((moments, drones), bool)
    contacts[50, drones // 2] = True
    return Flight(
        times_s=times,
        positions=positions,
        rotations=np.broadcast_to(np.eye(3), (moments, drones, 3, 3)),
        goals=np.broadcast_to(positions[-1], positions.shape),
        contacts=contacts,
        obstacles=np.array([[-0.5, 1.5], [2.5, -1.5]]),
        radius=np.array([0.3, 0.3]),
        room=ROOM,
        near_m=0.25,
    )


@pytest.mark.parametrize("view", [overhead((300, 300), ROOM), perspective((400, 300), ROOM)])
def test_the_room_fills_the_image_and_straight_lines_stay_straight(view: View) -> None:
    corners = np.array([[x, y, 0.0] for x in (-5, 5) for y in (-5, 5)])
    at = view.place(corners)
    size = np.array(view.size)
    assert (at >= 0).all()
    assert (at <= size).all()
    assert ((at.max(0) - at.min(0)) / size).max() > 0.9
    line = view.place(np.linspace([-4, -3, 0.5], [4, 2, 3.0], 9)) - view.place(np.array([-4.0, -3, 0.5]))
    assert np.abs(line[1:, 0] * line[-1, 1] - line[1:, 1] * line[-1, 0]).max() < 1e-6


def test_from_above_x_is_right_and_y_is_up_at_one_scale() -> None:
    view = overhead((200, 200), ROOM)
    origin, x, y, up = (view.place(np.array(p)) for p in ([0, 0, 1.0], [1, 0, 1.0], [0, 1, 1.0], [0, 0, 3.0]))
    assert x - origin == pytest.approx([view.scale, 0.0])
    assert y - origin == pytest.approx([0.0, -view.scale])
    assert up == pytest.approx(origin)


def test_in_perspective_what_is_near_is_large_and_what_is_high_is_above() -> None:
    view = perspective((400, 300), ROOM)
    near, far = np.array([-4.0, -4.0, 1.0]), np.array([4.0, 4.0, 1.0])
    assert view.depth(near) < view.depth(far)
    assert view.pixels(1.0, near) > 1.2 * view.pixels(1.0, far)
    assert view.place(near + np.array([0, 0, 1.0]))[1] < view.place(near)[1]


def test_gaps_and_outcome_by_hand() -> None:
    """Three metres between drones; the middle drone passes the first obstacle at 1.5 m, axis to axis."""
    flight = a_flight()
    found = gaps(flight)
    assert found["two drones"] == pytest.approx(3.0 - 2 * ARM_M)
    assert found["drone and obstacle"].min() == pytest.approx(1.5 - 0.3 - ARM_M, abs=1e-6)
    assert outcome(flight) == "0 of 3 there in the last second, 1 contact"
    assert "two drones" not in gaps(a_flight(drones=1))


def test_a_recorded_flight_is_the_environments_own() -> None:
    """Drones without thrust fall to the floor: g t^2 / 2 from their height, a little later since rotors run down."""
    config = dataclasses.replace(
        scene_entry("quadrotor/swarm").config, drones=3, episode_s=2.0, engine="eager", airframe="quad_swarm"
    )
    env = make_env("quadrotor/swarm", 2 * 3, family="nominal", seed=0, config=config)
    flight = record(env, lambda env: lambda obs: torch.full((6, 4), -1.0))
    assert flight.positions.shape == (200, 3, 3)
    assert len(flight.obstacles) == 12
    assert gaps(flight)["drone and obstacle"][0] > 0.1
    first = flight.contacts.argmax(0)
    assert flight.contacts.any(0).all()
    for drone, moment in enumerate(first):
        fall_s = np.sqrt(2 * (flight.positions[0, drone, 2] - ARM_M) / 9.81)
        assert fall_s < flight.times_s[moment] < fall_s + 0.1
        assert flight.positions[moment, drone, 2] == pytest.approx(ARM_M, abs=1e-3)
    turn = flight.rotations[0]
    assert turn @ turn.transpose(0, 2, 1) == pytest.approx(np.broadcast_to(np.eye(3), (3, 3, 3)), abs=1e-6)


def test_a_contact_is_seen_and_an_obstacle_hides_what_is_behind_it() -> None:
    flight = a_flight()
    view = perspective((500, 400), ROOM)
    stage = Stage(view, ROOM, flight.obstacles, flight.radius)
    rest = [(flight.positions[:1, i], np.zeros(0)) for i in range(3)]
    calm = stage.frame(flight.positions[0], flight.rotations[0], flight.goals[0], rest, arm_m=ARM_M)
    hit = stage.frame(
        flight.positions[0], flight.rotations[0], flight.goals[0], rest, [(np.array([0.0, 0, 2.5]), 0.0)], arm_m=ARM_M
    )
    red = lambda image: (np.abs(image.astype(int) - ALARM).sum(2) < 30).sum()  # noqa: E731
    assert red(calm) == 0
    assert red(hit) > 50
    away = view.turn[2, :2] / np.linalg.norm(view.turn[2, :2])
    for behind in (False, True):
        place = np.array([*(flight.obstacles[0] + (1.0 if behind else -1.0) * 0.45 * away), 1.0])
        alone = Stage(view, ROOM, flight.obstacles[:0], flight.radius[:0])
        seen = [
            s.frame(place[None], np.eye(3)[None], place[None], [(place[None], np.zeros(0))], arm_m=ARM_M)
            for s in (alone, stage)
        ]
        x, y = view.place(place).round().astype(int)
        patch = [s[y - 3 : y + 4, x - 3 : x + 4].astype(int) for s in seen]
        assert (np.abs(patch[0] - patch[1]).mean() > 20) == behind


def test_a_still_and_animations_are_what_their_names_say(tmp_path: Path) -> None:
    flights = {"policy": a_flight(), "baseline": a_flight(moments=101)}
    for name in ("a.png", "a.gif"):
        picture.draw_flights(tmp_path / name, flights, "two laws")
    picture.draw_flights(tmp_path / "a.mp4", {"policy": a_flight(moments=51)}, "one law")
    with Image.open(tmp_path / "a.png") as still:
        assert still.format == "PNG"
        assert still.width == round(picture.WIDTH * picture.STILL_SCALE)
    frames = len(np.arange(0.0, 1.5 + 1e-6, picture.FRAME_S))
    with Image.open(tmp_path / "a.gif") as moving:
        assert moving.format == "GIF"
        assert moving.n_frames == frames
        assert moving.info["duration"] == round(1000 * picture.FRAME_S)
    assert (tmp_path / "a.gif").stat().st_size < 60e3 + 20e3 * frames
    video = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    shown = [video.read()[1] for _ in range(len(np.arange(0.0, 0.5 + 1e-6, picture.FRAME_S)))]
    assert not video.read()[0]
    assert shown[0].shape[1] == picture.WIDTH
    assert (shown[0] != shown[-1]).any()
    video.release()


def test_colours_of_a_gif_leave_one_free_for_what_does_not_change() -> None:
    palette = np.array(palette_of_the_stage())
    assert len(palette) % 3 == 0
    assert len(palette) < 3 * 256
    assert palette.min() >= 0
    assert palette.max() <= 255


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"x.svg: expected a name that ends in .png, .gif, .mp4$"):
        picture.picture(tmp_path / "x.svg", lambda: None, {}, "")
