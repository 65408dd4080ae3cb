"""train and eval draw a season where the scene knows how."""

from pathlib import Path

from robo_rl.cli import main

SHORT = ["--scene.season-days", "0.5", "--scene.weather", "bundled"]
TINY = ["--num-envs", "16", "--steps", "128", "--eval-episodes", "2", "--algo.rollout-steps", "8"]


def test_a_training_run_and_an_evaluation_draw_their_season(tmp_path: Path) -> None:
    run, picture = tmp_path / "run", tmp_path / "season.png"
    words = ["train", "greenhouse/lettuce", "--algo", "ppo", *TINY, *SHORT, "--out", str(run)]
    assert main([*words, "--algo.minibatches", "2", "--algo.epochs", "1"]) == 0
    evaluation = ["eval", str(run), "--episodes", "2", "--baseline", "--family", "nominal", *SHORT]
    assert main([*evaluation, "--render", str(picture)]) == 0
    for drawn in (run / "episode.png", picture):
        assert drawn.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert drawn.stat().st_size > 20_000
