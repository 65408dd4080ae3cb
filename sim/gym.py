"""Registers every scene with Gymnasium: `quadrotor/hover` becomes `robo_rl/QuadrotorHover-v0`.

`import sim.gym` is enough, and so is the module before the id: `sim.gym:robo_rl/QuadrotorHover-v0`. Further arguments
of `gymnasium.make` and `make_vec` are `family`, `device` and the scene's own settings, for instance `mode`.
"""

from gymnasium.envs import registration

from sim.registry import scene_ids

NAMESPACE = "robo_rl"


def gym_id(scene_id: str) -> str:
    """The Gymnasium id of a scene."""
    words = scene_id.replace("/", "_").split("_")
    return f"{NAMESPACE}/{''.join(word.capitalize() for word in words)}-v0"


def register() -> None:
    """Registers all scenes; harmless when repeated. Imports neither torch nor a scene."""
    for scene in scene_ids():
        if gym_id(scene) not in registration.registry:
            registration.register(
                id=gym_id(scene),
                entry_point="sim.gym_env:SceneEnv",
                vector_entry_point="sim.gym_env:SceneVectorEnv",
                kwargs={"scene": scene},
            )


register()
