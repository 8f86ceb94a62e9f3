import math
import shutil
from pathlib import Path
from statistics import stdev

import pytest
from run_folders import results_of, write_best, write_run, write_test

from project.runs import record
from project.runs.repeats import read_results, repeats

METRICS = """epoch,step,train/loss,train/acc,val/loss,val/acc
0,9,,,0.9,0.5
0,9,0.4,0.4,,
1,19,,,0.8,0.75
1,19,0.2,0.2,,
2,29,,,0.7,0.6
2,29,0.3,0.3,,
3,39,,,0.8,0.75
"""
RECORD = {"state": "finished", "seconds": 90.0, "data": {"digest": "d1"}}


def test_result_is_read_from_the_files_of_a_run(tmp_path: Path) -> None:
    started = "2026-11-21T09:00:00+00:00"
    run = write_run(tmp_path / "lenet/2026-11-21_10-00-00", seed=4, **RECORD, started=started)
    write_test(run, 0.25)
    write_test(run, 0.625, "2026-11-22_00-00-00_2")
    (run / "test/2026-11-22_00-00-01").mkdir()  # was killed
    (result,) = results_of(tmp_path)
    assert (result.name, result.state) == ("lenet/2026-11-21_10-00-00", "finished")
    assert (result.started, result.minutes, result.digest) == (started, 1.5, "d1")
    assert (result.data, result.root, result.seed) == ("datamodules.SampleDataModule", "data/sample", 4)
    assert (result.epochs, result.planned_epochs) == (3, 3)
    assert (result.metric, result.train, result.val, result.val_epoch) == ("acc", 0.9, 0.75, 2)
    assert (result.test, result.tests, result.test_note) == (0.625, 2, None)


@pytest.mark.parametrize(
    ("monitor", "mode", "train", "val", "epoch"),
    [
        ("val/acc", "max", 0.2, 0.75, 2),  # the first of equal ones
        ("val/loss", "min", 0.3, 0.6, 3),
        ("val/loss", "max", 0.4, 0.5, 1),
        ("train/loss", "min", 0.2, 0.75, 2),
        ("val/f1", "max", 0.2, 0.75, 2),  # has no values
    ],
)
def test_the_best_validation_is_that_of_the_monitored_metric(
    monitor: str, mode: str, train: float, val: float, epoch: int, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "a/2026-11-21_10-00-00")
    with (run / "config.yaml").open("a") as file:
        file.write(f"checkpoint: {{monitor: {monitor}, mode: {mode}}}\n")
    (run / "metrics.csv").write_text(METRICS)
    (result,) = results_of(tmp_path)
    assert (result.train, result.val, result.val_epoch, result.epochs) == (train, val, epoch, 3)


def test_run_without_accuracy_has_its_loss(tmp_path: Path) -> None:
    write_test(write_run(tmp_path / "a/2026-11-21_10-00-00", metric="loss"), 0.4, metric="loss")
    (result,) = results_of(tmp_path)
    assert (result.metric, result.val, result.test) == ("loss", 0.5, 0.4)


def test_run_is_running_while_its_process_holds_the_lock_and_killed_otherwise(tmp_path: Path) -> None:
    held = write_run(tmp_path / "a/2026-11-21_10-00-00")
    write_run(tmp_path / "a/2026-11-21_11-00-00", state="running")
    record.begin(held, [])
    assert [result.state for result in results_of(tmp_path)] == ["killed", "running"]  # in the order of their start
    record.end(held, "interrupted", 60)
    assert [result.state for result in results_of(tmp_path)] == ["killed", "interrupted"]
    assert results_of(tmp_path)[1].minutes == 1


def test_nan_inf_or_an_incomplete_value_is_never_the_best_validation(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a/2026-11-21_10-00-00", (math.nan, 0.5, math.inf))
    with (run / "metrics.csv").open("a") as file:
        file.write("3,,20,damaged,,0.9\n3,,0.8\n4,,30,,,0.7")
    (result,) = results_of(tmp_path)
    assert (result.val, result.val_epoch) == (0.5, 2)


def test_tests_of_weights_without_a_run_are_not_runs(tmp_path: Path) -> None:
    write_test(tmp_path / "lenet/2026-11-21_10-00-00", 0.5)
    (tmp_path / "notes" / "of mine").mkdir(parents=True)
    (tmp_path / "notes" / ".DS_Store").touch()
    assert results_of(tmp_path) == []


def test_broken_files_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    names = [f"a/2026-11-21_10-00-0{i}" for i in range(7)]
    for name in names[1:]:
        write_test(write_run(tmp_path / name, seed=3, **RECORD), 0.5)
    (tmp_path / names[0]).mkdir()  # of a run that is just starting
    (tmp_path / names[1] / "config.yaml").write_text("trainer: {max_epo")
    (tmp_path / names[2] / "config.yaml").write_bytes(b"\xff\0\0")
    (tmp_path / names[3] / "metrics.csv").write_bytes(b"\0" * 200_000)
    (tmp_path / names[4] / "test/2026-11-22_00-00-00/results.json").write_text('{"metr')
    (tmp_path / names[5] / "run.json").write_text('{"state": "fini')
    (tmp_path / names[6] / "config.yaml").write_text("[trainer, {1: {2: 3}}]")
    results, problems = read_results(tmp_path)
    results.sort(key=lambda result: result.name)
    assert [result.name for result in results] == names[1:]
    assert [result.val for result in results] == [0.75, 0.75, None, *[0.75] * 3]
    assert [result.test for result in results] == [0.5, 0.5, 0.5, None, *[0.5] * 2]
    assert [result.state for result in results] == [*["finished"] * 4, "", "finished"]
    named = zip((*names[1:3], names[4]), sorted(problems), strict=True)
    assert all(name in problem for name, problem in named)


def test_repeats_are_summarised_by_mean_and_sample_std(tmp_path: Path) -> None:
    vals, tests = (0.7, 0.8, 0.75), (0.6, 0.7, 0.62)
    for seed, (val, test) in enumerate(zip(vals, tests, strict=True)):
        run = write_run(tmp_path / f"lenet/2026-11-21_1{seed}-00-00", (0.1, 0.2, val), seed, **RECORD)
        write_test(run, test)
    (summary,) = repeats(results_of(tmp_path))
    assert (summary.name, summary.n, summary.seeds) == ("lenet/2026-11-21_12-00-00", 3, [0, 1, 2])
    assert summary.val_mean == pytest.approx(0.75)
    assert summary.val_std == pytest.approx(0.05)
    assert (summary.test_n, summary.test_std) == (3, stdev(tests))
    assert (summary.minutes_mean, summary.left_out, summary.differ) == (1.5, [], [])


def test_other_settings_and_other_data_are_not_repeats(tmp_path: Path) -> None:
    write_run(tmp_path / "a/2026-11-21_10-00-00", seed=0, **RECORD)
    write_run(tmp_path / "a/2026-11-21_11-00-00", seed=1, lr=0.2, **RECORD)
    write_run(tmp_path / "a/2026-11-21_12-00-00", seed=2, **RECORD | {"data": {"digest": "d2"}})
    write_run(tmp_path / "a/2026-11-21_13-00-00", seed=3)
    write_run(tmp_path / "a/2026-11-21_14-00-00", seed=4, root="other")
    assert repeats(results_of(tmp_path)) == []
    write_run(tmp_path / "b/2026-11-21_15-00-00", seed=5, root="moved", **RECORD)  # the same data elsewhere
    (summary,) = repeats(results_of(tmp_path))
    assert (summary.seeds, summary.digest) == ([0, 5], "d1")


def test_runs_excluded_from_repeats_are_named(tmp_path: Path) -> None:
    write_run(tmp_path / "a/2026-11-21_10-00-00", (0.1, 0.1, 0.1), 0, **RECORD)
    write_run(tmp_path / "a/2026-11-21_11-00-00", (0.7, 0.7, 0.7), 0, **RECORD)
    write_run(tmp_path / "a/2026-11-21_12-00-00", (0.8, 0.8, 0.8), 1, **RECORD | {"versions": {"torch": "3"}})
    write_run(tmp_path / "a/2026-11-21_13-00-00", (0.9,), 2, **RECORD | {"state": "running"})
    write_run(tmp_path / "a/2026-11-21_14-00-00", (0.9,), 3, **RECORD | {"state": "interrupted"})
    write_run(tmp_path / "a/2026-11-21_15-00-00", (), 4, **RECORD)
    (write_run(tmp_path / "a/2026-11-21_16-00-00", seed=5, **RECORD) / "previous_configs").mkdir()
    (summary,) = repeats(results_of(tmp_path))
    assert summary.val_mean == pytest.approx(0.75)
    assert sorted(summary.left_out) == [
        *("1 interrupted", "1 killed", "1 of the same seed", "1 resumed with other settings", "1 without validation")
    ]
    assert summary.differ == ["versions"]


def test_a_test_belongs_to_the_checkpoint_that_was_tested(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a/2026-11-21_10-00-00")
    write_test(run, 0.625, "2026-11-22_00-00-00", **write_best(run, epoch=1))
    (result,) = results_of(tmp_path)
    assert (result.test, result.test_epoch, result.test_note) == (0.625, 1, None)

    of_newer = write_best(run, epoch=2)  # the run was resumed
    (result,) = results_of(tmp_path)
    assert (result.test, result.test_epoch, result.tests) == (None, None, 1)
    assert result.test_note == "tested at epoch 1; best.ckpt is newer (older result: 62.50%)"

    write_test(run, 0.5, "2026-11-22_01-00-00", **of_newer)
    (result,) = results_of(tmp_path)
    assert (result.test, result.test_epoch, result.test_note, result.tests) == (0.5, 2, None, 2)

    shutil.copytree(run, tmp_path / "a/copy", copy_function=shutil.copyfile)  # with new times
    assert [(result.test, result.test_note) for result in results_of(tmp_path)] == [(0.5, None), (0.5, None)]


def test_a_test_on_other_data_or_of_other_weights_has_a_note_and_comes_after_the_usual_one(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a/2026-11-21_10-00-00", **RECORD)
    best = write_best(run, epoch=2)
    data = {"data": {"root": "data/dark", "digest": "d2d2d2d2d2"}}
    write_test(run, 0.25, "2026-11-22_00-00-00", **best, **data)
    (result,) = results_of(tmp_path)
    assert result.test == 0.25
    assert result.test_note == (
        f"tested with {run}/checkpoints/best.ckpt of epoch 2, on other data than the run's: data/dark (d2d2d2d2)"
    )
    write_test(run, 0.75, "2026-11-22_01-00-00", **best, data={"root": "moved", "digest": "d1"})
    write_test(run, 0.5, "2026-11-22_02-00-00", weights=f"{run}/checkpoints/last.ckpt", epoch=3)
    (result,) = results_of(tmp_path)
    assert (result.test, result.test_note, result.tests) == (0.75, None, 3)


def test_only_tests_of_the_best_checkpoint_on_all_images_enter_the_mean(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"a/2026-11-21_1{seed}-00-00", seed=seed, **RECORD) for seed in range(6)]
    write_test(runs[0], 0.5)
    write_test(runs[1], 0.7, epoch=1)
    write_test(runs[2], 0.1, limit_batches=2)
    write_test(runs[3], 0.1, weights=f"{runs[3]}/checkpoints/last.ckpt")
    write_test(runs[4], 0.1, weights=f"{runs[0]}/checkpoints/best.ckpt")
    write_test(runs[5], 0.1, **write_best(runs[5], epoch=1))
    write_best(runs[5], epoch=2)
    (summary,) = repeats(results_of(tmp_path))
    assert (summary.n, summary.test_n, summary.test_mean) == (6, 2, pytest.approx(0.6))
    assert summary.left_out == ["4 tested with other images or weights"]


def test_folds_are_repeats_although_their_images_differ(tmp_path: Path) -> None:
    for fold, val in enumerate((0.5, 0.6, 0.7)):
        run = write_run(tmp_path / f"a/2026-11-21_1{fold}-00-00", (val,), **RECORD | {"data": {"digest": f"d{fold}"}})
        text = (run / "config.yaml").read_text().replace("root: data", f"folds: 3, fold: {fold}, root: data")
        (run / "config.yaml").write_text(text)
    (summary,) = repeats(results_of(tmp_path))
    assert (summary.n, summary.folds, summary.val_mean) == (3, [0, 1, 2], pytest.approx(0.6))
