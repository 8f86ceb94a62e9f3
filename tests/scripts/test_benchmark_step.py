import re
from pathlib import Path

import benchmark_step
import pytest
from benchmark_step import main


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TERM"):
        monkeypatch.setenv(name, "")  # the script sets them; they are restored after the test


def test_project_and_bare_loop_do_the_same_maths_and_are_timed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--batch_size=4", "--steps=6", "--epochs=2", "--repeats=1"]
    main(["--networks=lenet", *small, f"--output={tmp_path / 'step.md'}"])
    text = (tmp_path / "step.md").read_text()
    assert capsys.readouterr().out == text
    difference = re.search(r"differ by at most (\S+) at the end", text)
    assert difference is not None
    assert float(difference[1]) < 1e-6  # a loop with other operations differs by 1e-2
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| lenet")]
    assert [row[1] for row in rows] == ["bare loop", "Lightning barebones", "without callbacks", "this project"]
    for row in rows:
        median, low, high = map(float, re.findall(r"[\d.]+", row[2]))
        assert 0 < low <= median <= high


def test_a_step_has_no_begin_or_end_of_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0, 10, 13, 20, 30, 36, 50])  # start, second and last batch of two epochs; end
    monkeypatch.setattr(benchmark_step, "now", lambda: next(seconds))
    stopwatch = benchmark_step.Stopwatch(5)
    for _ in range(2):
        stopwatch.epoch()
        for i in range(5):
            stopwatch.batch(i)
    stopwatch.epoch()
    assert stopwatch.steps == [1, 2]  # three steps from the second batch to the fifth
    assert stopwatch.epochs == [4, 6]
