"""The policy file: what it carries, that third-party tools still read it, and that every damage is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.pd_policy import HOVER, OBSERVATION, linear_model, pd_weights, write_pd_policy

from controllers.artifact import Card, PolicyArtifact, Probes, read_card, write_artifact
from controllers.interface import Field
from hardware.errors import BadInput
from hardware.spec import load_spec

SPEC = load_spec("crazyflie")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pd_policy(tmp_path_factory.mktemp("artifact") / "pd.onnx")


def refused(path: Path, *words: str, **checks) -> None:
    with pytest.raises(BadInput) as caught:
        PolicyArtifact.load(path, **checks)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_the_file_is_an_onnx_model_for_everybody(policy: Path) -> None:
    model = onnx.load(policy)
    onnx.checker.check_model(model)
    assert [e.key for e in model.metadata_props] == ["robo_rl.card", "robo_rl.probes", "robo_rl.sha256"]
    assert json.loads(model.metadata_props[0].value)["scene"] == "quadrotor/hover"
    x = np.ones((3, 20), dtype=np.float32)
    session = onnxruntime.InferenceSession(str(policy))
    np.testing.assert_array_equal(session.run(None, {"policy": x})[0], PolicyArtifact.load(policy).run({"policy": x}))


def test_the_commands_are_the_hand_computed_ones(policy: Path) -> None:
    artifact = PolicyArtifact.load(policy, SPEC, 100.0)
    x = np.zeros((1, 20), dtype=np.float32)
    x[0, 0] = 0.5  # half a metre ahead: pitch 3 / 9.81 x 0.5
    np.testing.assert_allclose(artifact.run({"policy": x}), [[0, 3 / 9.81 * 0.5, 0, HOVER]], atol=1e-6)


def test_the_card_survives_exactly(policy: Path, tmp_path: Path) -> None:
    card = PolicyArtifact.load(policy).card
    odd = replace(
        card,
        rate_hz=1 / 3,
        evaluation={"success": 0.1 + 0.2, "nested": {"ci": [1e-300, 0.98]}},
        observation=(replace(OBSERVATION[0], scale=1 / 7, offset=-1e-9), *OBSERVATION[1:]),
    )
    model = linear_model(*pd_weights())
    x = np.zeros((16, 20), dtype=np.float32)
    again = tmp_path / "odd.onnx"
    write_artifact(again, model, odd, Probes({"policy": x}, np.tile([0, 0, 0, HOVER], (16, 1)).astype(np.float32)))
    assert read_card(again) == odd == PolicyArtifact.load(again).card
    # Writing over a file that has a card replaces it instead of stacking a second one.
    write_artifact(again, again.read_bytes(), card, PolicyArtifact.load(again).probes)
    assert [e.key for e in onnx.load(again).metadata_props].count("robo_rl.card") == 1
    assert read_card(again) == card


def test_a_policy_of_another_robot_version_rate_or_name_is_refused(policy: Path) -> None:
    refused(policy, "runs at 100 Hz, not at 50 Hz", rate_hz=50.0)
    refused(policy, "another version of robot 'crazyflie'", robot=replace(SPEC, rate_hz=200.0))
    refused(policy, "for robot 'crazyflie', not for 'panda'", robot=replace(SPEC, name="panda"))


def resealed(policy: Path, path: Path, *, card=None, probes=None, model: bytes | None = None) -> Path:
    """A policy file sealed correctly over altered content, as only its maker could."""
    import hashlib

    from controllers.protobuf import metadata_entry

    entries = {e.key: e.value.encode() for e in onnx.load(policy).metadata_props}
    body = linear_model(*pd_weights()) if model is None else model
    body += metadata_entry(b"robo_rl.card", entries["robo_rl.card"] if card is None else card)
    body += metadata_entry(b"robo_rl.probes", entries["robo_rl.probes"] if probes is None else probes)
    path.write_bytes(body + metadata_entry(b"robo_rl.sha256", hashlib.sha256(body).hexdigest().encode()))
    return path


def test_content_that_contradicts_itself_is_refused(policy: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    card = json.loads(read_card(policy).to_json())
    PolicyArtifact.load(resealed(policy, path))  # the unaltered one loads
    refused(resealed(policy, path, card=b"{"), "not JSON")
    refused(resealed(policy, path, card=b"[]"), "schema 'None'")
    refused(resealed(policy, path, card=json.dumps(card | {"schema": "robo_rl.policy/2"}).encode()), "policy/2")
    refused(resealed(policy, path, card=json.dumps(card | {"colour": 1}).encode()), "unknown: colour")
    fewer = [f for f in card["observation"] if f["name"] != "gravity"]
    refused(resealed(policy, path, card=json.dumps(card | {"observation": fewer}).encode()), "graph takes")
    refused(resealed(policy, path, probes=b"!!"), "probes cannot be read")
    refused(resealed(policy, path, probes=b"AAAA"), "probes cannot be read")
    weight, bias = pd_weights()
    refused(resealed(policy, path, model=linear_model(weight, bias + np.float32(1e-4))), "probes differ by 0.0001")
    refused(resealed(policy, path, model=linear_model(weight * np.float32(np.nan), bias)), "probes differ")


def test_foreign_and_missing_files_are_refused_in_one_line(policy: Path, tmp_path: Path) -> None:
    refused(tmp_path / "none.onnx", "not found")
    bare = tmp_path / "bare.onnx"
    bare.write_bytes(linear_model(*pd_weights()))
    refused(bare, "an ONNX model without a robo_rl card")
    for content in (b"", b"hello", b"\x00" * 4096, Path(__file__).read_bytes()):
        bare.write_bytes(content)
        refused(bare, "not a policy")


def test_nothing_is_written_that_could_not_be_loaded(policy: Path, tmp_path: Path) -> None:
    artifact = PolicyArtifact.load(policy)
    path = tmp_path / "sub" / "bad.onnx"
    wrong = Probes(artifact.probes.observation, artifact.probes.command + np.float32(0.01))
    with pytest.raises(BadInput, match="probes differ"):
        write_artifact(path, linear_model(*pd_weights()), artifact.card, wrong)
    short = Probes({"policy": np.zeros((15, 20), np.float32)}, np.zeros((15, 4), np.float32))
    with pytest.raises(BadInput, match=r"expected \(16, 20\)"):
        write_artifact(path, linear_model(*pd_weights()), artifact.card, short)
    with pytest.raises(BadInput, match="not a protobuf message"):
        write_artifact(path, b"junk", artifact.card, artifact.probes)
    assert not path.exists()
    assert list(path.parent.iterdir()) == []


def test_a_card_names_unknown_fields() -> None:
    text = Card("crazyflie", "", "attitude_thrust", 1.0, (), (), "", "", "", 0, "", 0).to_json()
    with pytest.raises(BadInput, match="field that this version does not know"):
        Card.from_json(text.replace('"observation": []', '"observation": [{"name": "x", "smell": 1}]'))
    assert Field("a", "gravity", 3, "1") != Field("a", "gravity", 3, "1", scale=2.0)


@settings(max_examples=60)
@given(st.data())
def test_any_flipped_bit_is_noticed(policy: Path, data: st.DataObject) -> None:
    raw = bytearray(policy.read_bytes())
    # Every region: model, card, probes, and each byte of the seal itself.
    at = data.draw(st.one_of(st.integers(0, len(raw) - 1), st.integers(len(raw) - 90, len(raw) - 1)))
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    damaged = policy.with_name("flipped.onnx")
    damaged.write_bytes(raw)
    refused(damaged)


@settings(max_examples=40)
@given(st.floats(0, 1, exclude_max=True))
def test_any_truncation_is_noticed(policy: Path, share: float) -> None:
    raw = policy.read_bytes()
    cut = policy.with_name("cut.onnx")
    cut.write_bytes(raw[: int(share * len(raw))])
    refused(cut)
