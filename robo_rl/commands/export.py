"""Export a run's policy again, from its newest checkpoint."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from robo_rl.cli import Outcome


@dataclass(frozen=True)
class Args:
    """Arguments of `robo-rl export`."""

    run: Positional[Path]
    """Run directory."""
    out: Path | None = None
    """File to write (default: RUN/policy.onnx)."""


def run(args: Args) -> Outcome:
    """Writes the policy file; the result is its contract card."""
    import json

    from controllers.artifact import PolicyArtifact
    from robo_rl import job, runs
    from robo_rl.config import read_yaml
    from robo_rl.distributed import Group

    folder = runs.open_run(args.run)
    config = job.config_of(read_yaml(folder.config))
    trainee, steps = job.start(config, Group(0, config.processes), folder.checkpoints)
    path = args.out or folder.policy
    command = runs.read_json(folder.meta).get("argv") or runs.command_line()
    path.parent.mkdir(parents=True, exist_ok=True)
    difference = job.export(config, trainee, path, command)
    evaluation = runs.read_json(folder.evaluation)
    done = runs.read_json(folder.done)
    if evaluation and done.get("env_steps") == steps:  # it was made of this very checkpoint
        job.write_evaluation_into(path, evaluation)
    card = json.loads(PolicyArtifact.load(path).card.to_json())
    print(f"{path}: {config.scene}, {steps:,} steps; differs from torch by at most {difference:.1g} (action units)")
    return Outcome(card | {"policy": str(path), "export_difference": difference})
