import csv
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import benchmark_accuracy
import plot_accuracy
import pytest
from benchmark_accuracy import (
    Clock,
    choose_folder,
    key_of,
    main,
    recipe_cell,
    refresh,
    train_missing,
    without_places,
    write_arguments,
    write_rows,
)
from PIL import Image

HEADER = "| recipe | network | data | epochs | hardware | minutes | val accuracy | test accuracy | n |"
TABLE = f"""# Recipes

{HEADER}
|---|---|---|---|---|---|---|---|---|
| `resnet.yaml` | ResNet-18 | CIFAR-10 | 30 | one GPU | not yet measured | | | |
| `lenet.yaml` | LeNet, our smallest | CIFAR-10 | 30 | 2 CPU cores | 3.4 | 69.63 ± 0.31 % | 68.82 ± 0.48 % | 3 |
| `lenet.yaml --data.split tutorial --data.root data/tutorial` | LeNet | CIFAR-10 | 30 | 2 cores | 2.3 | 1 % | 2 % | 1 |

Text after the table.
"""


@pytest.fixture(scope="module")
def results(fast: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the results of one seed, then two, and the table. Tests must not change it."""
    folder = tmp_path_factory.mktemp("benchmark")
    (folder / "README.md").write_text(TABLE)
    (folder / "results").mkdir()
    where = [f"--table={folder / 'README.md'}", f"--results={folder / 'results'}", f"--runs_dir={folder / 'runs'}"]
    args = [*fast, "--callbacks=false", "--trainer.max_epochs=1", "--note=digits", *where]

    def run(command: list[str], **options: Any) -> SimpleNamespace:
        main(command[2:])
        return SimpleNamespace(returncode=0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark_accuracy, "version_of_code", lambda: "a1b2c3d")
        patch.setattr(benchmark_accuracy, "subprocess", SimpleNamespace(run=run))  # in this process: torch is imported
        for seeds in (1, 2):
            main([*args, f"--seeds={seeds}"])
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_seeds_are_trained_once_and_missing_ones_are_added(results: Path) -> None:
    (folder,) = (results / "results").iterdir()
    assert folder.name == f"{date.today()}_lenet"
    names = ("README.md", "arguments.json", "seeds.csv", "seed_0.csv", "seed_1.csv")
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    rows = rows_of(folder / "seeds.csv")
    assert [row["seed"] for row in rows] == ["0", "1"]
    runs = sorted((results / "runs" / "lenet").iterdir())
    for run, row in zip(runs, rows, strict=True):
        (tested,) = run.glob("test/*/metrics.csv")
        assert float(row["test_acc"]) == float(rows_of(tested)[-1]["test/acc"])
        validations = [float(value) for line in rows_of(run / "metrics.csv") if (value := line["val/acc"])]
        assert float(row["val_acc"]) == max(validations)
        assert row["parameters"] == "62006"
        assert 0 < float(row["training_minutes"]) < float(row["minutes"])
        assert float(row["images_per_second"]) == pytest.approx(12 * 32 / 60 / float(row["training_minutes"]), rel=0.1)
    (curve,) = rows_of(folder / "seed_1.csv")
    assert (curve["epoch"], curve["step"]) == ("1", "12")
    assert 0 < float(curve["training_seconds"]) < float(curve["seconds"])


def test_page_of_the_results_has_mean_std_and_command_but_no_path(results: Path) -> None:
    (page,) = (results / "results").glob("*/README.md")
    text = page.read_text()
    assert "--data datamodules.SampleDataModule" in text
    assert str(results) not in text
    assert "data.root" not in text
    assert text.count(" ± ") == 3  # the title of the row, val and test
    assert "Data: digits. Network: LeNet, 62 thousand parameters." in text


def test_only_the_row_of_the_recipe_is_added(results: Path) -> None:
    before, lines = TABLE.splitlines(), (results / "README.md").read_text().splitlines()
    row = lines.pop(7)
    assert lines == before
    assert row.startswith("| `lenet.yaml --data datamodules.SampleDataModule --data.num_workers 0")
    assert row.endswith(f"[2](results/{date.today()}_lenet/README.md) |")


@pytest.fixture
def copied(results: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that copies the results, with other arguments."""

    def copy(**changes: Any) -> Path:
        (source,) = (results / "results").iterdir()
        folder = Path(shutil.copytree(source, tmp_path / "results" / source.name))
        write_arguments(folder, {"configs": ["configs/lenet.yaml"], "options": [], "note": ""} | changes)
        return folder

    return copy


@pytest.mark.parametrize(
    ("options", "row"),
    [
        ([], "| `lenet.yaml` | LeNet, our smallest | CIFAR-10 | 1 | a laptop | "),
        (
            ["--data.split", "tutorial"],  # the row is found for any path of the data
            "| `lenet.yaml --data.split tutorial --data.root data/tutorial` | LeNet | CIFAR-10 | 1 | a laptop | ",
        ),
    ],
)
def test_existing_row_retains_its_text_and_is_refreshed_once(
    options: list[str], row: str, copied: Callable[..., Path], tmp_path: Path
) -> None:
    table = tmp_path / "README.md"
    table.write_text(TABLE)
    folder = copied(options=options)
    for _ in range(2):
        refresh(table, folder, "a laptop")
        lines = zip(TABLE.splitlines(), table.read_text().splitlines(), strict=True)
        (changed,) = [after for before, after in lines if after != before]
        assert changed.startswith(row)


def test_options_of_paths_are_not_part_of_a_recipe() -> None:
    options = ["--trainer.max_epochs=3", "--data.root", "/somewhere", "--runs_dir=/there", "--data.batch_size", "64"]
    left = ["--trainer.max_epochs", "3", "--data.batch_size", "64"]
    assert without_places(options) == left
    cell = recipe_cell(["configs/resnet.yaml", "configs/sample.yaml"], left)
    assert cell == "`resnet.yaml` + `sample.yaml --trainer.max_epochs 3 --data.batch_size 64`"
    assert key_of(cell) == ["resnet.yaml", "sample.yaml", *left]


@pytest.mark.parametrize(
    ("text", "option", "message"),
    [
        ("# No table\n", [], "Expected a table with the line"),
        (TABLE.replace("| n |", "| seeds |"), [], "Expected a table with the line"),
        (TABLE.replace(" | 1 % |", " |"), [], "Expected 9 cells"),
        (TABLE, ["--seed_everything=3"], "Expected no --seed_everything"),
        (TABLE, ["--test_after_fit=false"], "Expected no --test_after_fit"),
        (TABLE, ["--ckpt_path=best.ckpt"], "Expected no --ckpt_path"),
    ],
)
def test_mistake_is_rejected_before_training(
    text: str, option: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "README.md").write_text(text)
    where = [f"--table={tmp_path / 'README.md'}", f"--results={tmp_path / 'results'}"]
    with pytest.raises(SystemExit) as stop:
        main(["--config=configs/lenet.yaml", *where, *option])
    assert message in f"{stop.value.code}{capsys.readouterr().err}"
    assert not (tmp_path / "results").exists()


def test_finished_results_are_never_written_again(copied: Callable[..., Path]) -> None:
    folder = copied()
    arguments = {"configs": ["configs/lenet.yaml"], "options": [], "note": ""}
    assert choose_folder(folder.parent, "lenet", arguments, 3) == folder
    assert choose_folder(folder.parent, "lenet", arguments, 2).name == f"{date.today()}_lenet_2"
    assert choose_folder(folder.parent, "lenet", arguments | {"options": ["--x"]}, 3).name == f"{date.today()}_lenet_3"


@pytest.mark.slow
def test_seed_that_fails_does_not_affect_other_seeds(copied: Callable[..., Path]) -> None:
    folder = copied()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(SystemExit, match="Seed 2 exited with code 2"):
        train_missing(folder, 3, ["--config", "configs/lenet.yaml", "--trainer.max_epoch=1"])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_training_clock_stands_still_in_validation_and_while_checkpoints_are_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = [0.0]
    monkeypatch.setattr(benchmark_accuracy, "now", lambda: seconds[0])

    def wait(*args: Any) -> None:
        seconds[0] += 1

    metrics = {"val/acc": SimpleNamespace(item=lambda: 0.5)}
    trainer: Any = SimpleNamespace(checkpoint_callback=SimpleNamespace(monitor="val/acc"), save_checkpoint=wait)
    vars(trainer).update(world_size=1, current_epoch=0, global_step=3, sanity_checking=True, callback_metrics=metrics)
    clock: Any = Clock(0.0)

    def call(hook: str, *args: Any) -> None:
        getattr(clock, hook)(trainer, None, *args)
        wait()

    for hook in ("on_fit_start", "on_validation_start", "on_validation_end", "on_train_start"):  # with a sanity check
        call(hook)
    seconds[0] -= 1
    for i in range(3):
        call("on_train_batch_start", ([0] * 4, None), i)
    trainer.sanity_checking = False
    for hook in ("on_validation_start", "on_validation_end"):
        call(hook)
    trainer.save_checkpoint("within validation")
    call("on_train_epoch_end")  # then callbacks draw images
    trainer.save_checkpoint("after validation")
    call("on_train_end")
    assert (clock.training, clock.images) == (4, 12)
    assert [row["training_seconds"] for row in clock.rows] == [3]


def test_curves_are_drawn_and_the_time_to_reach_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = tmp_path / "2026-01-01_fake"
    fake.mkdir()
    for seed, accs in enumerate([(0.5, 0.8), (0.79, 0.7)]):
        curve = [{"training_seconds": 60 * i, "seconds": 90 * i, "val_acc": acc} for i, acc in enumerate(accs, start=1)]
        write_rows(fake / f"seed_{seed}.csv", curve)
    plot_accuracy.main([str(fake), f"--output={tmp_path / 'curve.png'}", "--reach", "50", "80"])
    lines = capsys.readouterr().out.splitlines()
    assert "| 2026-01-01_fake | training only | 1.00 | 1 of 2 seeds | 2 |" in lines
    assert "| 2026-01-01_fake | whole command | 1.50 | 1 of 2 seeds | 2 |" in lines
    assert Image.open(tmp_path / "curve.png").size[0] > 1000
