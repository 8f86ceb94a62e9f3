import math
import re
from pathlib import Path

import numpy as np
import pytest
from command_line import check_that_it_changes_nothing, stop_of

from project.__main__ import main
from project.cli import lr_range
from project.cli.lr_range import FIRST, STEPS, suggestion

FACTORS = np.geomspace(1e-4, 1e2, STEPS).tolist()
RULES = "[{pattern: 'conv1.*', lr_scale: 0.1}]"


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lr_range, "STEPS", 30)
    monkeypatch.setattr(lr_range, "FIRST", 3)


def test_the_suggestion_is_below_the_factor_with_the_lowest_loss() -> None:
    losses = [2.3 - 1.5 * math.exp(-(math.log10(factor) ** 2)) for factor in FACTORS]  # lowest at factor 1
    assert suggestion(FACTORS, losses, 0.05) == ("factor 0.2, so --model.optimizer.lr 0.01", 0.2)
    assert suggestion(FACTORS, losses, None) == ("factor 0.2", 0.2)


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ([2.3, 4.0, math.inf], "The loss diverges at once, at factor 0.00011."),
        ([math.nan], "The loss diverges at once"),
        ([math.nan] * STEPS, "The loss diverges at once"),
        ([2.3] * STEPS, "The loss never falls from 2.3, up to factor"),
        ([2.3 + i / STEPS for i in range(STEPS)], "The loss never falls"),
    ],
)
def test_losses_that_allow_no_suggestion_are_described(losses: list[float], words: str) -> None:
    text, factor = suggestion(FACTORS[: len(losses)], losses, 0.05)
    assert text.startswith(words)
    assert factor is None
    assert len(losses) < FIRST or len(losses) == STEPS


def test_the_factor_applies_to_all_groups_without_a_schedule(short, fast, tmp_path, capsys, monkeypatch) -> None:
    rates = []

    class Spy(lr_range.Ramp):
        def on_train_batch_end(self, trainer, *args) -> None:
            super().on_train_batch_end(trainer, *args)
            rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    monkeypatch.setattr(lr_range, "Ramp", Spy)
    path = main(["find-lr", *fast, f"--model.param_groups={RULES}", f"--runs_dir={tmp_path}"])
    assert len(rates) == 30
    low, high = lr_range.LOW, lr_range.HIGH
    np.testing.assert_allclose(rates[0], [0.005 * low, 0.05 * low])
    np.testing.assert_allclose(rates[-1], [0.005 * high, 0.05 * high])
    assert path.read_bytes().startswith(b"\x89PNG")
    assert f"Picture: {path}" in capsys.readouterr().out
    assert [file.relative_to(tmp_path).parts[0] for file in tmp_path.rglob("*") if file.is_file()] == ["find_lr"]


def test_a_following_run_and_the_random_states_are_as_before(short, fast, tmp_path) -> None:
    check_that_it_changes_nothing("find-lr", fast, tmp_path)


def test_training_that_diverges_at_once_ends_early_and_is_described(short, fast, tmp_path: Path, capsys) -> None:
    path = main(["find-lr", *fast, "--model.optimizer.lr=1e12", f"--runs_dir={tmp_path}"])
    assert re.search(r"The loss diverges at once, at factor \S+. Use a much lower", capsys.readouterr().out)
    assert path.is_file()


def test_a_wrong_option_is_reported_as_by_fit(fast, tmp_path, capsys) -> None:
    code, err = stop_of(["find-lr", *fast, "--model.optimizer.lrr=1", f"--runs_dir={tmp_path / 'a'}"], capsys)
    assert code == 2
    assert "'model.optimizer.lrr'. Did you mean lr?" in err
    assert not (tmp_path / "a").exists()
