"""A policy as an app-layer folder of the Crazyflie firmware: its out-of-tree controller, ready for `make`."""

from pathlib import Path

from controllers.artifact import PolicyArtifact
from hardware.robots.crazyflie.obstacles import NOTHING, Obstacles
from robo_rl.export_c.onboard import MODE, PEER_AGE_MS, TAU_MS, Onboard, write_onboard
from robo_rl.export_c.parts import literal, template
from robo_rl.export_c.source import write_files

GENERATED = ("controller.c", "Makefile", "Kbuild", "app-config")
YOURS = "obstacles.h"
"""Written where it is missing, or where obstacles are given."""


def write_crazyflie(artifact: PolicyArtifact, folder: Path, obstacles: Obstacles | None = None) -> Onboard:
    """Writes the folder; raises BadInput for a policy that does not fly on board, before anything is written."""
    written = write_onboard(artifact, folder)
    card = artifact.card
    readme = template(
        "crazyflie/README.md.in",
        SCENE=card.scene,
        SHA=artifact.sha256[:12],
        SEED=card.seed,
        COMMIT=card.commit[:12],
        PARAMETERS=f"{written.footprint.parameters:,}",
        PERIOD_MS=written.period_ms,
        TAU_MS=TAU_MS,
        PEER_AGE_MS=PEER_AGE_MS,
        MODE=MODE,
    )
    texts = {name: template(f"crazyflie/{name}.in") for name in GENERATED}
    if obstacles is not None or not (folder / YOURS).exists():
        texts[YOURS] = _obstacles(NOTHING if obstacles is None else obstacles)
    write_files(folder, {"README.md": readme} | texts)
    return written


def _obstacles(obstacles: Obstacles) -> str:
    rows = (
        f"    {{{literal(x)}, {literal(y)}, {literal(r)}}}, /* {x:g}, {y:g}, {r:g} */\n"
        for (x, y), r in zip(*obstacles, strict=True)
    )
    return template("crazyflie/obstacles.h.in", COUNT=len(obstacles.radius), ROWS="".join(rows))
