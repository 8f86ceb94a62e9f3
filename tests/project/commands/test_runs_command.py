import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import stop_of
from run_folders import write_best, write_run, write_test

from project.__main__ import main
from project.runs.config import BEST
from project.runs.outcome import NOTHING
from project.runs.summary import summary

ROOT = Path(__file__).parents[3]
RECORD = {"state": "finished", "seconds": 90.0, "data": {"digest": "d1d1d1d1d1"}}


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    """Return a directory of three runs: two seeds of one config, and an interrupted autoencoder."""
    run = write_run(tmp_path / "lenet/2026-11-21_10-00-00", seed=7, **RECORD)
    write_test(run, 0.5, "2026-11-22_00-00-00")
    write_test(run, 0.625, "2026-11-22_00-00-01")
    write_run(tmp_path / "lenet/2026-11-21_11-00-00", (0.5, 0.6, 0.65), 8, **RECORD)
    write_run(tmp_path / "auto/2026-11-21_12-00-00", (0.25,), metric="loss", state="interrupted")
    return tmp_path


Printed = Callable[..., str]


@pytest.fixture
def printed(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> Printed:
    """Return a function that returns what ``runs`` prints with options."""

    def printed(*options: str, runs_dir: Path = runs_dir) -> str:
        main(["runs", f"--runs_dir={runs_dir}", *options])
        return capsys.readouterr().out

    return printed


def words(text: str) -> list[list[str]]:
    """Return the words of each line."""
    return [line.split() for line in text.splitlines()]


def test_runs_are_listed_in_a_table_and_repeats_below_it(printed: Printed) -> None:
    head, first, second, auto, _, title, mean_head, mean = words(printed())
    assert head == ["name", "data", "seed", "epochs", "val", "test", "minutes", "state"]
    assert " ".join(first) == "lenet/2026-11-21_10-00-00 Sample 7 3/3 75.00% 62.50% (2 tests) 1.5 finished"
    assert "62.50%" not in second
    assert " ".join(auto[2:]) == "0 1/3 loss 0.25 interrupted"
    assert " ".join(title).startswith("Mean ± sample std (n - 1)")
    assert mean_head == ["name", "data", "n", "seeds", "val", "test", "minutes"]
    assert " ".join(mean[1:]) == "Sample d1d1d1d1 2 7 8 70.00 ± 7.07 % 62.50% (n = 1) 1.5"


@pytest.mark.parametrize(
    ("options", "hours"),
    [
        ([], "10 11 12"),
        (["--reverse"], "12 11 10"),
        (["--sort=val"], "11 10 12"),  # accuracies, then losses
        (["--sort=val", "--reverse"], "10 11 12"),
        (["--sort=minutes", "--reverse"], "10 11 12"),
        (["--sort=name"], "12 10 11"),
    ],
)
def test_runs_are_sorted_by_any_column_and_the_unknown_are_last(
    options: list[str], hours: str, printed: Printed
) -> None:
    names = [line[0] for line in words(printed(*options))[1:4]]
    assert " ".join(name.partition("/")[2][11:13] for name in names) == hours


def test_runs_that_a_mean_leaves_out_are_printed_below_it(runs_dir: Path, printed: Printed) -> None:
    write_run(runs_dir / "lenet/2026-11-21_13-00-00", seed=9, **RECORD | {"state": "failed"})
    write_run(runs_dir / "lenet/2026-11-21_14-00-00", seed=8, **RECORD | {"git": {"commit": "c"}})
    line = printed("--seeds").splitlines()[-1]
    assert line == "lenet/2026-11-21_14-00-00: left out 1 of the same seed, 1 failed; not the same git."


def test_json_holds_exact_values(runs_dir: Path, printed: Printed) -> None:
    write_run(runs_dir / "lenet/2026-11-21_13-00-00", (1 / 3,), **RECORD)
    write_test(runs_dir / "auto/2026-11-21_12-00-00", float("nan"), metric="loss")
    rows = json.loads(printed("--json"), parse_constant=pytest.fail)
    assert [row["val"] for row in rows] == [0.75, 0.65, 0.25, 1 / 3]
    assert [row["tests"] for row in rows] == [2, 0, 1, 0]
    assert [row["test"] for row in rows] == [0.625, None, "nan", None]


def test_seeds_are_printed_as_table_and_json(runs_dir: Path, printed: Printed) -> None:
    assert printed("--seeds").startswith("Mean ±")
    (row,) = json.loads(printed("--seeds", "--json", "--sort=val"))
    assert (row["n"], row["seeds"], row["test_n"], row["test_std"]) == (2, [7, 8], 1, None)
    write_run(runs_dir / "other/auto/2026-11-21_12-00-00")
    none = printed("--seeds", runs_dir=runs_dir / "other")
    assert "No settings have finished runs with two or more seeds" in none


def test_test_of_other_weights_or_of_part_of_the_images_is_marked(runs_dir: Path, printed: Printed) -> None:
    run = runs_dir / "lenet/2026-11-21_11-00-00"
    write_test(run, 0.4, weights="last.ckpt", limit_batches=2)
    out = printed()
    assert " 40.00%* " in out
    assert f"* lenet/{run.name}: tested with last.ckpt, on part of the images (limit_test_batches 2).\n" in out


def test_an_old_test_is_not_that_of_a_newer_checkpoint(
    runs_dir: Path, printed: Printed, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs_dir / "lenet/2026-11-21_11-00-00"
    write_test(run, 0.4, **write_best(run, epoch=1))
    write_best(run, epoch=3)
    out = printed()
    note = f"* lenet/{run.name}: tested at epoch 1; best.ckpt is newer (older result: 40.00%).\n"
    assert note in out
    assert " ".join(next(line for line in words(out) if run.name in line[0])[5:7]) == f"{NOTHING}* 1.5"
    compared = main(["runs", f"--runs_dir={runs_dir}", "compare", "2026-11-21_10-00-00", run.name])
    assert ["test accuracy", "62.50%", NOTHING, NOTHING] in compared
    assert "tested at epoch 1; best.ckpt is newer" in capsys.readouterr().out


def test_broken_run_is_listed_and_its_problem_is_printed(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs_dir / "lenet/2026-11-21_10-00-00/config.yaml").write_text("trainer: {max_epo")
    (runs_dir / "lenet/2026-11-21_14-00-00").mkdir()  # of a run that is just starting
    assert len(main(["runs", f"--runs_dir={runs_dir}"])) == 3
    output = capsys.readouterr()
    assert "lenet/2026-11-21_10-00-00" in output.out
    (line,) = output.err.splitlines()
    assert line.startswith(f"Expected YAML in {runs_dir}/lenet/2026-11-21_10-00-00/config.yaml, but got")


def test_without_runs_a_command_to_start_one_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = "Start one: python -m project fit --config configs/resnet.yaml\n"
    assert main(["runs", f"--runs_dir={tmp_path}"]) == []
    assert capsys.readouterr() == ("", f"No runs in {tmp_path}/*/*. {start}")
    assert main(["runs", f"--runs_dir={tmp_path}/typo", "--json"]) == []
    assert capsys.readouterr() == ("[]\n", f"No runs in {tmp_path}/typo/*/*, which does not exist. {start}")


def test_two_runs_are_compared(runs_dir: Path, printed: Printed) -> None:
    a, b = runs_dir / "lenet/2026-11-21_10-00-00", runs_dir / "auto/2026-11-21_12-00-00"
    out = printed("compare", "best", b.name)
    assert f"A  {a}\n" in out
    assert f"B  {b}\n" in out
    assert "   ImageClassifier on SampleDataModule\n" in out
    assert {
        *("seed_everything 7 0", "state finished interrupted", "epochs trained 3 1 -2"),
        *(f"data.digest d1d1d1d1d1 {NOTHING}", f"best validation accuracy 75.00% {NOTHING} {NOTHING}"),
    } <= set(map(" ".join, words(out)))
    assert "The two configs are the same." in printed("compare", str(a), str(a))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--sort=vall"], "invalid choice: 'vall' (choose from"),
        (["compare", "last"], "the following arguments are required: B"),
        (["compare", "last", "lest"], "but got lest. Similar runs: `last`, `best`."),
    ],
)
def test_mistake_is_reported_in_one_line(
    args: list[str], message: str, runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, err = stop_of(["runs", *args, f"--runs_dir={runs_dir}"], capsys)
    assert code == 2
    assert err.startswith("error: Expected")
    assert err.count("\n") == 1
    assert message in err


def test_runs_imports_no_torch(runs_dir: Path) -> None:
    commands = "".join(
        f"main(['runs', '--runs_dir={runs_dir}', {more}]); " for more in ("", "'compare', 'last', 'best'")
    )
    check = "assert not {'torch', 'lightning'} & {*sys.modules}"
    code = f"import sys; from project.__main__ import main; {commands}{check}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize(
    "options",
    [
        ["--checkpoint.monitor=train/loss", "--trainer.val_check_interval=0.5"],
        ["--trainer.val_check_interval=0.25", "--trainer.accumulate_grad_batches=2"],
    ],
    ids=["training loss", "accumulated gradients"],
)
def test_best_validation_is_that_of_the_weights_in_best_ckpt(
    fast: list[str], options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = ["--model.lr_scheduler=null", "--callbacks=false", "--trainer.max_epochs=3"]
    run = main(["fit", *fast, *usual, *options, f"--runs_dir={tmp_path}"]).run_dir
    checkpoint = torch.load(run / BEST, weights_only=True)
    accuracy, number = checkpoint["resume"]["metrics"]["val/acc"], checkpoint["epoch"] + 1
    (result,) = main(["runs", f"--runs_dir={tmp_path}"])
    assert (result.val, result.val_epoch, result.epochs) == (accuracy, number, 3)
    assert f"val {accuracy:.2%} (best validation, epoch {number})" in summary(run, run)


def test_settings_that_differ_are_listed_by_short_names(tmp_path: Path, printed: Printed) -> None:
    for i, lr in enumerate((0.1, 0.2)):
        write_run(tmp_path / f"other/a/2026-11-21_1{i}-00-00", lr=lr, seed=i, root=f"data/{i}")
    text = printed(runs_dir=tmp_path / "other")
    assert text[text.index("Settings that differ") :].split()[3:] == [
        *("name", "lr", "a/2026-11-21_10-00-00", "0.1", "a/2026-11-21_11-00-00", "0.2")
    ]
    assert "Settings that differ" not in printed("--seeds", runs_dir=tmp_path / "other")
