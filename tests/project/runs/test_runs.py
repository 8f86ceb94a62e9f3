import json
import subprocess
from pathlib import Path

import pytest
from run_folders import write_run, write_test

from project.errors import RunError
from project.resume.resume import expand_run
from project.runs.folders import check_data_folder, create_folder, find_run, name_of, run_of_checkpoint
from project.runs.summary import shell_command, summary


def make_run(folder: Path) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").touch()
    return folder


def test_directories_created_in_one_second_are_distinct(tmp_path: Path) -> None:
    folders = [create_folder(tmp_path / "resnet") for _ in range(12)]
    assert len(set(folders)) == 12
    assert all(folder.is_dir() for folder in folders)


def test_last_is_the_run_started_last_whatever_its_name(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="found none"):
        find_run("last", tmp_path)
    starts = {"a/lr_3000": 1, "z/2026-01-01_03-04-05": 1, "b/2026-01-02_03-04-05_2": 2, "a/2026-01-02_03-04-05_10": 2}
    for name, day in starts.items():
        (make_run(tmp_path / name) / "run.json").write_text(f'{{"started": "2026-01-0{day}T03:04:05+00:00"}}')
    (tmp_path / "a/2027-01-01_00-00-00/test").mkdir(parents=True)  # a test of weights without a run
    assert find_run("last", tmp_path) == tmp_path / "a/2026-01-02_03-04-05_10"


def write_accuracies(run: Path, *accuracies: float) -> Path:
    rows = [f"{epoch},{9 + epoch},{accuracy}" for epoch, accuracy in enumerate(accuracies)]
    (run / "metrics.csv").write_text("\n".join(["epoch,step,val/acc", *rows, ""]))
    return run


def test_best_is_the_run_of_the_highest_validation_and_the_earlier_of_equals(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="for `best`, but found none"):
        find_run("best", tmp_path)
    make_run(tmp_path / "a/2026-01-01_00-00-00")
    (make_run(tmp_path / "a/2026-01-02_00-00-00") / "metrics.csv").write_text("epoch,step,val/loss\n0,9,99.0\n")
    with pytest.raises(RunError, match="for `best`, but found none"):
        find_run("best", tmp_path)
    write_accuracies(make_run(tmp_path / "b/2026-01-03_00-00-00"), float("nan"), 0.8)
    best = write_accuracies(make_run(tmp_path / "z/2026-01-04_00-00-00"), 0.9, 0.1)
    write_accuracies(make_run(tmp_path / "a/2026-01-05_00-00-00"), 0.9, float("inf"))
    assert find_run("best", tmp_path) == best
    (best / "checkpoints/best.ckpt").touch()
    expanded = expand_run(["test", "--run", "best", "--runs_dir", str(tmp_path)])
    assert expanded[-4:] == ["--ckpt_path", str(best / "checkpoints/best.ckpt"), "--run", str(best)]


def test_best_stays_within_the_data_of_the_last_run_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "a/2026-01-01_00-00-00", (0.9,), root="data/digits", started="2026-01-01")
    best = write_run(tmp_path / "a/2026-01-02_00-00-00", (0.7,), started="2026-01-02")
    write_run(tmp_path / "a/2026-01-03_00-00-00", (0.6,), started="2026-01-03")
    assert find_run("best", tmp_path) == best
    assert capsys.readouterr().err == f"Best of 2 runs on data/sample: {best} (val 70.00%)\n"


def test_run_is_found_by_its_name_if_that_is_unique(tmp_path: Path) -> None:
    wide = create_folder(tmp_path / "a", "wide")
    (wide / "config.yaml").touch()
    assert wide.name.endswith("_wide")
    assert find_run("wide", tmp_path) == wide
    (create_folder(tmp_path / "b", "wide") / "config.yaml").touch()
    with pytest.raises(RunError, match="wide matches"):
        find_run("wide", tmp_path)
    with pytest.raises(RunError, match="Expected --name of letters"):
        create_folder(tmp_path / "a", "../wide")


def test_run_is_found_by_its_path_or_the_end_of_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a/2026-01-02_03-04-05")
    make_run(tmp_path / "a/2026-01-02_03-04-06")
    make_run(tmp_path / "b/2026-01-02_03-04-06")
    for name in (str(run), "a/2026-01-02_03-04-05", "a/2026-01-02_03-04-05/", "2026-01-02_03-04-05"):
        assert find_run(name, tmp_path) == run
    with pytest.raises(RunError, match=r"name of one run, but 2026-01-02_03-04-06 matches .*/a/2026.*, .*/b/2026"):
        find_run("2026-01-02_03-04-06", tmp_path)


def test_unknown_run_is_an_error_with_similar_or_the_latest_runs(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f"got x. Runs: none in {tmp_path}"):
        find_run("x", tmp_path)
    runs = [make_run(tmp_path / f"lenet/2026-01-0{day}_03-04-05") for day in range(1, 6)]
    with pytest.raises(RunError, match=f"got x. Runs: {', '.join(map(str, runs[-3:]))}."):
        find_run("x", tmp_path)
    with pytest.raises(RunError, match=f"got lent/2026-01-04_03-04-05. Similar runs: {runs[3]}"):
        find_run("lent/2026-01-04_03-04-05", tmp_path)
    with pytest.raises(RunError, match=r"got lst. Similar runs: `last`."):
        find_run("lst", tmp_path)
    for name in ("", ".", "/"):
        with pytest.raises(RunError):
            find_run(name, tmp_path)


def test_run_of_a_checkpoint_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path / "a/b")
    assert run_of_checkpoint(run / "checkpoints/best.ckpt") == Path("a/b")
    assert run_of_checkpoint(tmp_path / "best.ckpt") is None


@pytest.mark.parametrize(
    ("configs", "name"),
    [
        (["configs/resnet.yaml"], "resnet"),
        (["configs/resnet.yaml", "configs/sample.yaml"], "resnet-sample"),
        (["runs/resnet-sample/2026-01-02_03-04-05/config.yaml"], "resnet-sample"),
        ([], "default"),
    ],
)
def test_runs_are_named_for_their_configs(configs: list[str], name: str) -> None:
    assert name_of(configs) == name


METRICS = """epoch,step,train/acc,val/acc
0,10,,0.5
0,10,0.4,
1,20,,0.75
1,20,0.8,
"""


def test_summary_is_read_from_the_files(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a/2026-01-02_03-04-05")
    assert "Accuracy" not in summary(run, run)
    (run / "metrics.csv").write_text(METRICS)
    (run / "checkpoints/best.ckpt").touch()
    text = summary(run, run)
    assert "\nAccuracy     train 80.00%, val 75.00% (best validation, epoch 2)\n" in text
    assert "Measured" not in text
    assert f"-m tensorboard.main --logdir {run}" in text
    assert f"-m project test --run {run}" in text
    (run / "metrics.csv").write_text(METRICS.replace("acc", "loss"))
    assert "\nLoss         train 0.4, val 0.5 (best validation, epoch 1)\n" in summary(run, run)


@pytest.mark.parametrize(
    ("metric", "results", "line"),
    [
        ("acc", {}, "test 70.00% by last.ckpt"),
        ("loss", {}, "test loss 0.7 by last.ckpt"),
        ("acc", {"limit_batches": 2}, "test 70.00% by last.ckpt, on part of the images (limit_test_batches 2)"),
    ],
)
def test_results_are_printed_with_their_weights(
    metric: str, results: dict[str, int], line: str, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "a/2026-01-02_03-04-05")
    test = write_test(run, 0.7, metric=metric, weights="last.ckpt", **results)
    assert f"\nMeasured     {line}\n" in summary(run, test)


def test_next_commands_are_quoted_for_the_shell(tmp_path: Path) -> None:
    file = tmp_path / "my $runs.json"
    file.write_text("{}")
    assert subprocess.check_output(shell_command("json.tool", file), shell=True) == b"{}\n"


def test_data_of_a_run_is_looked_for_in_the_present_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "start/data").mkdir(parents=True)
    run = make_run(tmp_path / "start/runs/a/2026-01-02_03-04-05")
    monkeypatch.chdir(tmp_path / "start")
    gone = dict.fromkeys(("root", "images", "archive"), "gone")
    (run / "config.yaml").write_text(json.dumps({"data": {"init_args": gone}}))
    check_data_folder(run, gone)  # no record
    (run / "run.json").write_text(json.dumps({"working_directory": str(Path.cwd())}))
    check_data_folder(run, gone)  # to be prepared where the run was started
    monkeypatch.chdir(tmp_path)
    check_data_folder(run, {"root": "of the user", "images": "/absolute", "archive": None})
    for key in gone:
        advice = rf"in gone, but .* Run the command in {tmp_path}/start, or set --data\.{key}\."
        with pytest.raises(RunError, match=advice):
            check_data_folder(run, {key: "gone"})
    (tmp_path / "gone").mkdir()
    check_data_folder(run, gone)
