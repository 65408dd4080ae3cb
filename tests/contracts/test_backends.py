"""Physics engines that a scene offers beside its own equations."""

import pytest
import torch

from hardware.errors import BadInput
from sim.registry import make_env, scene_entry, scene_ids


@pytest.mark.parametrize("scene", scene_ids())
def test_a_scene_names_its_back_ends_where_another_is_asked_for(scene: str) -> None:
    offered = ", ".join(["torch", *scene_entry(scene).backends])
    with pytest.raises(BadInput, match=f"scene {scene} has no back end 'mujoco'; its back ends: {offered}$"):
        make_env(scene, 1, backend="mujoco")


OFFERED = [(scene, name) for scene in scene_ids() for name in scene_entry(scene).backends]


@pytest.mark.parametrize(("scene", "backend"), OFFERED)
def test_another_engine_gives_the_same_worlds_at_the_start(scene: str, backend: str) -> None:
    """Same drones, starts, goals and maps; then physics that agree to a millimetre after a few steps."""
    own, other = make_env(scene, 16, seed=7), make_env(scene, 16, seed=7, backend=backend)
    assert own.spec == other.spec
    a, b = own.reset(), other.reset()
    assert all(torch.equal(a[k], b[k]) for k in a)
    for _ in range(5):
        action = torch.zeros(own.num_envs, own.interface.action_size)
        one, two = own.step(action), other.step(action)
    assert torch.allclose(one.obs["policy"], two.obs["policy"], atol=2e-2)
    assert torch.allclose(one.reward, two.reward, atol=1e-2)


@pytest.mark.parametrize(("scene", "backend"), OFFERED)
def test_another_engine_repeats_itself_and_resumes(scene: str, backend: str) -> None:
    env, twin = make_env(scene, 16, seed=3, backend=backend), make_env(scene, 16, seed=3, backend=backend)
    for _ in range(20):
        last = env.step(torch.zeros(env.num_envs, env.interface.action_size))
    twin.set_state(None, env.get_state())
    for _ in range(20):
        action = torch.full((env.num_envs, env.interface.action_size), 0.1)
        last, again = env.step(action), twin.step(action)
    # The engine keeps the bodies in double precision, a saved state has single.
    assert torch.allclose(last.obs["policy"], again.obs["policy"], atol=1e-3)
