import json
import math
from pathlib import Path

import pytest
from report_runs import write_config, write_resumed_run, write_run
from torch.utils.tensorboard import SummaryWriter

from project.__main__ import main


def test_scalars_are_exported_in_tensorboards_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "a/2026-11-21_10-00-00")
    path = main(["export-scalars", "last", f"--runs_dir={tmp_path}"])
    assert path == run / "scalars.json"
    assert capsys.readouterr().out == f"Scalars: {path}\n"
    scalars = json.loads(path.read_text())
    assert {"train/loss", "val/acc", "lr-SGD/default", "epoch"} <= set(scalars)
    assert [step for _, step, _ in scalars["val/loss"]] == [9, 19, 29]
    assert scalars["train/loss"][0][2] == pytest.approx(0.9)
    assert all(time > 1e9 for series in scalars.values() for time, _, _ in series)


def test_a_run_may_be_named_as_for_commands_that_take_a_checkpoint(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a/2026-11-21_10-00-00")
    other = write_run(tmp_path / "a/2026-11-21_11-00-00")
    assert main(["export-scalars", "--run", "last", f"--runs_dir={tmp_path}"]) == other / "scalars.json"
    assert main(["export-scalars", f"--run={run}"]) == run / "scalars.json"
    assert main(["report", "--run", str(run), "last", f"--runs_dir={tmp_path}"]).parent == other


def test_each_step_of_a_run_that_was_resumed_is_exported_once(tmp_path: Path) -> None:
    run = write_resumed_run(tmp_path / "a/2026-11-21_10-00-00")
    scalars = json.loads(main(["export-scalars", str(run)]).read_text())
    assert [(step, value) for _, step, value in scalars["train/loss"]] == [(9, 9), (19, 9), (29, 1), (39, 1)]


def test_nan_and_inf_are_strings_that_parse_as_numbers(tmp_path: Path) -> None:
    run = write_config(tmp_path / "a/2026-11-21_10-00-00")
    with SummaryWriter(run) as writer:
        for step, value in enumerate((math.nan, math.inf, -math.inf, 0.5)):
            writer.add_scalar("loss", value, step)
    path = main(["export-scalars", str(run), f"--output={tmp_path / 'new' / 'out.json'}"])
    values = [value for _, _, value in json.loads(path.read_text(), parse_constant=pytest.fail)["loss"]]
    assert values == ["NaN", "Infinity", "-Infinity", 0.5]
    assert [str(float(value)) for value in values] == ["nan", "inf", "-inf", "0.5"]


def test_an_existing_file_is_overwritten_only_in_the_run_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "a/2026-11-21_10-00-00")
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
