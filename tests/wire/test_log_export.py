"""Episodes for other programs: every array by hand on a small annotated log, read with the formats' own libraries."""

import json
import os
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from mcap.reader import make_reader
from support.log_samples import by_mcap, by_ours, by_rosbags, fixture

from hardware.annotation import AnnotationStore, annotations
from hardware.annotation.recorded import keep_recorded
from hardware.errors import BadInput, RoboError
from hardware.log.exporters.copies import export_copy
from hardware.log.pictures import decoded, pictures_of
from hardware.log.reader import Log
from hardware.log.steps import demonstrations
from hardware.log.types import new_message
from hardware.log.writer import LogWriter
from hardware.messages import RosbagsMessages, Tick, pack_tick
from robo_rl.cli import main

STEP_NS = 100_000_000
MAKE = RosbagsMessages()


@pytest.fixture
def flight(tmp_path: Path) -> Log:
    """Twenty ticks at 10 Hz: what was observed is (i, -i), what was sent is (i / 10); a topic that is neither; and
    pictures at 5 Hz, of one grey each.
    """
    with LogWriter(tmp_path / "flight") as writer:
        for i in range(20):
            t_ns = i * STEP_NS
            observed = {"policy": np.array([i, -i], dtype=float)}
            tick = Tick(i, t_ns, {"yaw": np.zeros(1)}, observed, np.full(1, 99.0), np.array([i / 10]))
            writer.write_message("/cf/policy/tick", pack_tick(tick, MAKE), t_ns)
            writer.write_message("/cf/battery", new_message("sensor_msgs/msg/BatteryState"), t_ns)
            if i % 2 == 0:
                picture = new_message("sensor_msgs/msg/Image")
                picture.height, picture.width, picture.step, picture.encoding = 4, 6, 20, "rgb8"
                picture.data = np.tile(np.array([i, 100, 200] * 6 + [0, 0], dtype=np.uint8), 4)
                writer.write_message("/front/image_raw", picture, t_ns)
    return Log(tmp_path / "flight", "log")


@pytest.fixture
def marked(flight: Log) -> Log:
    """Rows 2..7 a success called `reach`, rows 10..19 not judged; 13 and 14 excluded; a human was in command in 11."""
    store = AnnotationStore(flight, "anna")
    first = store.add("episode", 2 * STEP_NS, 8 * STEP_NS, label="reach")
    store.add("outcome", 8 * STEP_NS, label="success", episode=first.id)
    store.add("episode", 10 * STEP_NS, 20 * STEP_NS)
    store.add("exclude", 13 * STEP_NS, 15 * STEP_NS, value={"reason": "cable"})
    store.add("intervention", 11 * STEP_NS, 12 * STEP_NS, label="human")
    store.add("note", 3 * STEP_NS, label="a draft's neighbour")
    store.add("episode", 0, 20 * STEP_NS, status="draft")
    return flight


def test_episodes_of_a_log_by_hand(marked: Log) -> None:
    """Rows, rewards, interventions and ends; an exclusion cuts; drafts do not count."""
    found = demonstrations(marked)
    assert found.rate_hz == 10.0
    assert found.observation == [f"/cf/policy/tick.observation.policy.{i}" for i in range(2)]
    assert found.action == ["/cf/policy/tick.sent.0"]
    rows = [[int(o[0]) for o in e.observation] for e in found.episodes]
    assert rows == [[2, 3, 4, 5, 6, 7], [10, 11, 12], [15, 16, 17, 18, 19]]
    for e in found.episodes:
        np.testing.assert_array_equal(e.observation[:, 1], -e.observation[:, 0])
        np.testing.assert_allclose(e.action[:, 0], e.observation[:, 0] / 10, rtol=1e-6)
    assert [(e.outcome, e.terminated, e.task) for e in found.episodes] == [
        ("success", True, "reach"), ("", False, ""), ("", False, ""),
    ]  # fmt: skip
    assert [e.reward.tolist() for e in found.episodes] == [[0, 0, 0, 0, 0, 1], [0, 0, 0], [0, 0, 0, 0, 0]]
    assert [e.intervention.tolist() for e in found.episodes][1] == [False, True, False]
    assert found.source == marked.content_hash


def test_rewards_that_were_marked_replace_the_outcome(marked: Log) -> None:
    """A point on the row that it falls into, a range on every row of it."""
    store = AnnotationStore(marked, "anna")
    store.add("reward", 4 * STEP_NS + 30_000_000, value={"reward": -2.0})
    store.add("reward", 5 * STEP_NS, 7 * STEP_NS, value={"reward": 0.5})
    assert demonstrations(marked).episodes[0].reward.tolist() == [0, 0, -2.0, 0.5, 0.5, 0]


def test_without_marks_the_whole_log_is_one_episode(flight: Log) -> None:
    [episode] = demonstrations(flight).episodes
    assert len(episode.t_ns) == 20
    assert (episode.outcome, episode.terminated) == ("", False)


def test_topics_of_different_rates_by_hand(tmp_path: Path) -> None:
    """The newest observation not after the row; the last command before the next row; nothing before all have begun."""
    with LogWriter(tmp_path / "log") as writer:
        for topic, times in {"/joint_states": range(0, 40, 2), "/joint_command": range(5, 40, 10)}.items():
            for t in times:  # in hundredths of a second
                message = new_message("sensor_msgs/msg/JointState")
                message.name, message.position = ["a", "b"], np.array([t, 1000.0 + t])
                writer.write_message(topic, message, t * 10_000_000)
    log = Log(tmp_path / "log", "log")
    found = demonstrations(log)
    assert found.rate_hz == 10.0
    assert found.action == ["/joint_command.position.0", "/joint_command.position.1"]
    assert found.units["/joint_states.position.0"] == "rad"
    [episode] = found.episodes
    assert (episode.t_ns // 10_000_000).tolist() == [5, 15, 25, 35]
    assert episode.observation[:, 0].tolist() == [4, 14, 24, 34]
    assert episode.action[:, 0].tolist() == [5, 15, 25, 35]
    [faster] = demonstrations(log, rate_hz=20.0).episodes
    assert faster.observation[:, 0].tolist() == [4, 10, 14, 20, 24, 30, 34]
    assert faster.action[:, 0].tolist() == [5, 5, 15, 15, 25, 25, 35]
    one = demonstrations(log, ["/joint_states.position"], ["/joint_command.position"])
    assert len(one.observation) == 2


@pytest.mark.parametrize(
    ("observation", "action", "says"),
    [
        (["/cf/battery"], [], r"which topic is the action\? say --action TOPIC\[\.COLUMN\]; topics: /cf/policy/tick"),
        (["/nix"], ["/cf/policy/tick.sent"], "'/nix' not found; known: /cf/battery"),
        (["/cf/battery.nix"], ["/cf/policy/tick.sent"], "column 'nix' of /cf/battery not found or no numbers; columns"),
    ],
)
def test_what_cannot_be_rows_is_one_line(flight: Log, observation: list, action: list, says: str) -> None:
    with pytest.raises(RoboError, match=says):
        demonstrations(flight, observation, action)


def _export(marked: Log, out: Path, format: str) -> dict:
    report = out.with_name("report.json")
    assert main(["log", "export", str(marked.path), "--format", format, "--out", str(out), "--json", str(report)]) == 0
    assert main(["log", "export", str(marked.path), "--format", format, "--out", str(out)]) == 1
    return json.loads(report.read_text())


def test_lerobot_layout(marked: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Read with pyarrow: rows, places of episodes, tasks, statistics against numpy's."""
    pq = pytest.importorskip("pyarrow.parquet")
    result = _export(marked, tmp_path / "set", "lerobot")
    assert result["channels"] == {"episode 0": 6, "episode 1": 3, "episode 2": 5}
    assert "exists; give a new directory" in capsys.readouterr().err
    info = json.loads((tmp_path / "set/meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_episodes"], info["total_frames"]) == ("v3.0", 10, 3, 14)
    rows = pq.read_table(tmp_path / "set" / info["data_path"].format(chunk_index=0, file_index=0)).to_pydict()
    assert set(rows) == set(info["features"])
    assert [v[0] for v in rows["observation.state"]] == [2, 3, 4, 5, 6, 7, 10, 11, 12, 15, 16, 17, 18, 19]
    assert rows["next.done"] == [False] * 5 + [True] + [False] * 8
    assert rows["next.success"] == rows["next.done"]
    assert rows["next.reward"] == [0.0] * 5 + [1.0] + [0.0] * 8
    assert rows["intervention"].index(True) == 7
    assert rows["frame_index"] == [*range(6), *range(3), *range(5)]
    assert rows["timestamp"][:3] == pytest.approx([0.0, 0.1, 0.2])
    places = pq.read_table(tmp_path / "set/meta/episodes/chunk-000/file-000.parquet").to_pydict()
    assert list(zip(places["dataset_from_index"], places["dataset_to_index"], strict=True)) == [(0, 6), (6, 9), (9, 14)]
    assert places["tasks"] == [["reach"], ["unnamed task"], ["unnamed task"]]
    assert places["stats/action/max"] == [pytest.approx([0.7]), pytest.approx([1.2]), pytest.approx([1.9])]
    stats = json.loads((tmp_path / "set/meta/stats.json").read_text())["observation.state"]
    states = np.array(rows["observation.state"])
    np.testing.assert_allclose(stats["mean"], states.mean(axis=0))
    np.testing.assert_allclose(stats["std"], states.std(axis=0))
    np.testing.assert_allclose(stats["q90"], np.quantile(states, 0.9, axis=0))
    assert stats["count"] == [14]
    pictures = [decoded(p["bytes"])[0, 0, 0] for p in rows["observation.images.front"]]
    assert pictures == [2, 2, 4, 4, 6, 6, 10, 10, 12, 14, 16, 16, 18, 18]
    assert info["features"]["observation.images.front"]["shape"] == [4, 6, 3]
    colours = json.loads((tmp_path / "set/meta/stats.json").read_text())["observation.images.front"]
    np.testing.assert_allclose(np.ravel(colours["mean"]), np.array([np.mean(pictures), 100, 200]) / 255)
    tasks = pq.read_table(tmp_path / "set/meta/tasks.parquet").to_pydict()
    assert tasks == {"task_index": [0, 1], "__index_level_0__": ["reach", "unnamed task"]}


LEROBOT = """
import sys
from lerobot.datasets.lerobot_dataset import LeRobotDataset
d = LeRobotDataset("local/set", root=sys.argv[1], delta_timestamps={"action": [0, 0.1]})
row = d[5]
print(len(d), d.num_episodes, d.fps, row["task"], bool(row["next.success"]), row["action_is_pad"].tolist())
print([round(float(v) * 255) for v in row["observation.images.front"][:, 3, 5]], row["observation.images.front"].shape)
"""
MINARI = """
import sys, minari
d = minari.MinariDataset(sys.argv[1] + "/data")
for e in d.iterate_episodes():
    print(e.observations.shape, e.actions.shape, e.rewards.sum(), e.terminations[-1], e.truncations[-1], end="; ")
print(d.total_episodes, d.total_steps, d.observation_space.contains(d[0].observations[0]))
"""
ROBOMIMIC = """
import sys
import robomimic.utils.obs_utils as obs_utils
from robomimic.utils.dataset import SequenceDataset
obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": ["state"]}})
keys = {"obs_keys": ["state"], "dataset_keys": ["actions", "rewards", "dones"]}
d = SequenceDataset(sys.argv[1], **keys, load_next_obs=True, seq_length=2, filter_by_attribute="train")
row = d[3]
print()
print(len(d), row["obs"]["state"][:, 0].tolist(), row["next_obs"]["state"][:, 0].tolist(), row["rewards"].tolist())
"""


@pytest.mark.parametrize(
    ("format", "variable", "program", "says"),
    [
        (
            "lerobot",
            "LEROBOT_PYTHON",
            LEROBOT,
            "14 3 10 reach True [False, True]\n[6, 100, 200] torch.Size([3, 4, 6])",
        ),
        (
            "minari",
            "MINARI_PYTHON",
            MINARI,
            "(6, 2) (5, 1) 1.0 True False; (3, 2) (2, 1) 0.0 False True; (5, 2) (4, 1) 0.0 False True; 3 11 True",
        ),
        ("robomimic", "ROBOMIMIC_PYTHON", ROBOMIMIC, "11 [5.0, 6.0] [6.0, 7.0] [0.0, 1.0]"),
    ],
)
def test_the_libraries_themselves_load_it(
    marked: Log, tmp_path: Path, format: str, variable: str, program: str, says: str
) -> None:
    """In an environment of their own, named by a variable: their requirements are no part of this project's."""
    python = os.environ.get(variable)
    if python is None:
        pytest.skip(f"{variable} names no Python with {format} installed")
    pytest.importorskip("pyarrow")
    pytest.importorskip("h5py")
    _export(marked, tmp_path / "set-v0", format)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [python, "-c", program, str(tmp_path / "set-v0")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.stdout.strip().endswith(says), done.stdout + done.stderr[-2000:]


def test_robomimic_layout(marked: Log, tmp_path: Path) -> None:
    """Read with h5py: a step needs the observation after it; the reward at the end is kept."""
    h5py = pytest.importorskip("h5py")
    assert _export(marked, tmp_path / "set.hdf5", "robomimic")["channels"] == {"demo_0": 5, "demo_1": 2, "demo_2": 4}
    with h5py.File(tmp_path / "set.hdf5") as file:
        demo = file["data/demo_0"]
        assert demo["obs/state"][:, 0].tolist() == [2, 3, 4, 5, 6]
        assert demo["next_obs/state"][:, 0].tolist() == [3, 4, 5, 6, 7]
        front = demo["obs/front_image"]
        assert (front.shape, front[:, 0, 0, 0].tolist()) == ((5, 4, 6, 3), [2, 2, 4, 4, 6])
        assert demo["next_obs/front_image"][4, 3, 5].tolist() == [6, 100, 200]
        assert demo["rewards"][:].tolist() == [0, 0, 0, 0, 1]
        assert demo["dones"][:].tolist() == [0, 0, 0, 0, 1]
        assert file["data/demo_1/interventions"][:].tolist() == [False, True]
        assert (demo.attrs["num_samples"], file["data"].attrs["total"], demo.attrs["outcome"]) == (5, 11, "success")
        assert json.loads(file["data"].attrs["env_args"])["type"] == 2
        assert file["mask/success"][:].tolist() == [b"demo_0"]


def test_pictures_of_other_kinds(tmp_path: Path) -> None:
    """Grey and BGR become RGB, compressed ones stay; what is no picture, or changes its size, is refused."""
    jpeg = cv2.imencode(".jpg", np.full((8, 8, 3), 77, dtype=np.uint8))[1].tobytes()
    with LogWriter(tmp_path / "log") as writer:
        for i in range(2):
            for topic, encoding, pixels in (
                ("/grey", "mono8", [7]),
                ("/bgr", "bgr8", [1, 2, 3]),
                ("/deep", "16UC1", [1]),
            ):
                image = new_message("sensor_msgs/msg/Image")
                image.height, image.width, image.step, image.encoding = 1, 2, 2 * len(pixels), encoding
                image.data = np.array(pixels * 2, dtype=np.uint8)
                writer.write_message(topic, image, i)
            packed = new_message("sensor_msgs/msg/CompressedImage")
            packed.data = np.frombuffer(jpeg, dtype=np.uint8)
            writer.write_message("/packed", packed, i)
            sized = cv2.imencode(".png", np.zeros((8, 8 + i, 3), dtype=np.uint8))[1]
            packed.data = sized.reshape(-1)
            writer.write_message("/sized", packed, i)
    log = Log(tmp_path / "log")
    assert decoded(pictures_of(log, "/grey").encoded[0]).tolist() == [[[7, 7, 7]] * 2]
    assert decoded(pictures_of(log, "/bgr").encoded[0]).tolist() == [[[3, 2, 1]] * 2]
    assert pictures_of(log, "/packed").encoded == [jpeg, jpeg]
    for topic, says in (
        ("/deep", "encoded as 16UC1; expected rgb8"),
        ("/sized", "change their size"),
        ("/nix", "not found"),
    ):
        with pytest.raises(RoboError, match=says):
            pictures_of(log, topic)
    with pytest.raises(BadInput, match="cannot be decoded"):
        decoded(b"no picture")


def test_minari_layout(marked: Log, tmp_path: Path) -> None:
    """T observations, T - 1 steps, and an end that is a termination only where somebody judged it."""
    h5py = pytest.importorskip("h5py")
    _export(marked, tmp_path / "set-v0", "minari")
    metadata = json.loads((tmp_path / "set-v0/data/metadata.json").read_text())
    assert (metadata["total_episodes"], metadata["total_steps"], metadata["dataset_id"]) == (3, 11, "set-v0")
    assert json.loads(metadata["action_space"])["high"] == pytest.approx([1.9])
    with h5py.File(tmp_path / "set-v0/data/main_data.hdf5") as file:
        sizes = [(len(file[f"episode_{i}/observations"]), len(file[f"episode_{i}/actions"])) for i in range(3)]
        assert sizes == [(6, 5), (3, 2), (5, 4)]
        assert file["episode_0/terminations"][:].tolist() == [False] * 4 + [True]
        assert file["episode_1/truncations"][:].tolist() == [False, True]


def test_a_copy_with_its_annotations_inside(marked: Log, tmp_path: Path) -> None:
    """Every message byte for byte, the marks as attachment (read by mcap) and topic; they come back as annotations."""
    before = by_ours(marked.path)
    assert export_copy(marked, tmp_path / "copy") == 6
    assert [m for m in by_ours(tmp_path / "copy") if m.topic != "/annotation"] == before == by_mcap(marked.path)
    with (tmp_path / "copy" / "copy_0.mcap").open("rb") as stream:
        [attachment] = make_reader(stream).iter_attachments()
    assert (attachment.name, attachment.media_type) == ("annotations.json", "application/json")
    assert [m["id"] for m in json.loads(attachment.data)] == [m.id for m in annotations(marked)]
    copy = Log(tmp_path / "copy")
    shown = [(m.log_ns, json.loads(m.message.data)["id"]) for m in copy.messages(["/annotation"])]
    assert shown == [(m.t0_ns, m.id) for m in annotations(marked)]
    assert keep_recorded(copy)
    adopted = {m.id: m for m in annotations(copy)}
    for m in annotations(marked):
        assert (adopted[m.id].kind, adopted[m.id].t1_ns, adopted[m.id].by) == (m.kind, m.t1_ns, m.by)
    with pytest.raises(BadInput, match="copy exists"):
        export_copy(marked, tmp_path / "copy")


def test_a_copy_for_humble_has_the_shape_of_a_genuine_one(marked: Log, tmp_path: Path) -> None:
    """The same keys and kinds of values as rosbag2's own version 5; rosbags and mcap read every message."""
    genuine = yaml.safe_load((fixture("convert_a") / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    out = tmp_path / "old"
    assert main(["log", "export", str(marked.path), "--ros", "humble", "--out", str(out)]) == 0
    ours = yaml.safe_load((out / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert ours["version"] == genuine["version"] == 5
    assert _shape(ours) == _shape(genuine)
    quality = [yaml.safe_load(t["topic_metadata"]["offered_qos_profiles"]) for t in (
        *ours["topics_with_message_count"][:1], *genuine["topics_with_message_count"][:1]
    )]  # fmt: skip
    assert _shape(quality[0]) == _shape(quality[1])
    assert quality[0][0]["reliability"] == 1  # rmw_qos_reliability_policy_t: reliable
    assert by_ours(out) == by_mcap(out) == by_ours(marked.path)
    assert [r[2] for r in by_rosbags(out)] == [m.cdr for m in by_ours(marked.path)]


def _shape(value: object) -> object:
    """Keys and types, of lists the first element's."""
    if isinstance(value, dict):
        return {k: _shape(v) for k, v in value.items()}
    return [_shape(value[0])] if isinstance(value, list) else type(value)


def test_open_prints_or_runs_the_viewer(
    marked: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A stand-in program on the path is run with the recording's file; without one, the command is printed."""
    file = str(marked.files[0])
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert main(["log", "open", str(marked.path), "--in", "plotjuggler"]) == 0
    assert f"plotjuggler -d {file}\nplotjuggler is not installed here" in capfd.readouterr().out
    (tmp_path / "bin").mkdir()
    viewer = tmp_path / "bin" / "rerun"
    viewer.write_text('#!/bin/sh\necho "shown: $1"; exit $(test -e "$1" && echo 0 || echo 3)\n')
    viewer.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    assert main(["log", "open", str(marked.path)]) == 0
    assert f"shown: {file}" in capfd.readouterr().out
    viewer.write_text("#!/bin/sh\nexit 4\n")
    assert main(["log", "open", str(marked.path), "--in", "rerun"]) == 1
    assert "rerun ended with status 4" in capfd.readouterr().err
