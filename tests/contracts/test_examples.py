"""Every example runs as it is, and says what it promises."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROMISED = {
    "choose_contexts.py": "multitask  return over contexts",
    "compare_greenhouse.py": "rule",
    "double_dropout.py": "alpha 0.5, beta 0.2",
    "fly_emulated.py": "height after landing",
    "gym_env.py": "64 drones with random actions",
    "offline_greenhouse.py": "| noisy |",
    "read_log.py": "climbs 0.500 m/s on average",
    "tiny_scene.py": "256 episodes",
    "train_hover.py": "success rate",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PROMISED)
def test_example_runs(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert PROMISED[name] in done.stdout
    assert not list(tmp_path.iterdir()), "an example leaves nothing behind"


def test_every_example_is_run_and_has_a_main() -> None:
    files = {p.name: p.read_text() for p in EXAMPLES.glob("*.py")}
    assert set(files) == set(PROMISED)
    assert all("def main()" in text and 'if __name__ == "__main__":' in text for text in files.values())
