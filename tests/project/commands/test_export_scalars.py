import json
import math
from pathlib import Path

import pytest
from report_runs import write_config
from torch.utils.tensorboard import SummaryWriter

from project.__main__ import main


def write_scalars(run: Path, values: dict[int, float], **options: int) -> Path:
    number = len(list(run.glob("*tfevents*")))
    with SummaryWriter(run, filename_suffix=".new", **options) as writer:
        for step, value in values.items():
            writer.add_scalar("train/loss", value, step)
    # files are read in the order of their names, which for files of one second may not be that of writing
    next(run.glob("*.new")).rename(run / f"events.out.tfevents.{number}")
    return run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_scalars(write_config(tmp_path / "a/2026-11-21_10-00-00"), {9: 0.5, 19: 0.25})


def test_scalars_are_exported_in_tensorboards_format(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = main(["export-scalars", "last", f"--runs_dir={tmp_path}"])
    assert path == run / "scalars.json"
    assert capsys.readouterr().out == f"Scalars: {path}\n"
    series = json.loads(path.read_text())["train/loss"]
    assert [(step, value) for _, step, value in series] == [(9, 0.5), (19, 0.25)]
    assert all(time > 1e9 for time, _, _ in series)


def test_a_run_may_be_named_as_for_commands_that_take_a_checkpoint(run: Path, tmp_path: Path) -> None:
    other = write_scalars(write_config(tmp_path / "a/2026-11-21_11-00-00"), {1: 1})
    assert main(["export-scalars", "--run", "last", f"--runs_dir={tmp_path}"]) == other / "scalars.json"
    assert main(["export-scalars", f"--run={run}"]) == run / "scalars.json"
    assert main(["report", "--run", str(run), "last", f"--runs_dir={tmp_path}"]).parent == other


def test_each_step_of_a_run_that_was_resumed_is_exported_once(run: Path) -> None:
    write_scalars(run, {19: 0.125, 29: 0.0625}, purge_step=10)
    scalars = json.loads(main(["export-scalars", str(run)]).read_text())
    assert [(step, value) for _, step, value in scalars["train/loss"]] == [(9, 0.5), (19, 0.125), (29, 0.0625)]


def test_nan_and_inf_are_strings_that_parse_as_numbers(tmp_path: Path) -> None:
    values = dict(enumerate((math.nan, math.inf, -math.inf, 0.5)))
    run = write_scalars(write_config(tmp_path / "a/2026-11-21_10-00-00"), values)
    path = main(["export-scalars", str(run), f"--output={tmp_path / 'new' / 'out.json'}"])
    exported = [value for _, _, value in json.loads(path.read_text(), parse_constant=pytest.fail)["train/loss"]]
    assert exported == ["NaN", "Infinity", "-Infinity", 0.5]
    assert [str(float(value)) for value in exported] == ["nan", "inf", "-inf", "0.5"]


def test_an_existing_file_is_overwritten_only_in_the_run_directory(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    for command, usual in (("export-scalars", "scalars.json"), ("report", "report.html")):
        with pytest.raises(SystemExit) as stop:
            main([command, str(run), f"--output={mine}"])
        assert stop.value.code == 2
        message = f"error: Expected a new file at --output, but {mine} exists. Use another name, or remove it.\n"
        assert capsys.readouterr().err == message
        (run / usual).write_text("of an earlier epoch")
        assert main([command, str(run)]).read_text() != "of an earlier epoch"
    assert mine.read_text() == "mine"


def test_run_without_scalars_is_reported_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_config(tmp_path / "a/2026-11-21_10-00-00")
    with pytest.raises(SystemExit) as stop:
        main(["export-scalars", str(run)])
    assert stop.value.code == 2
    assert f"Expected scalars in the event files of {run}, but found none" in capsys.readouterr().err
