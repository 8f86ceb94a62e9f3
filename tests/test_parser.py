from pathlib import Path

import pytest

from project.__main__ import main

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ["--trainer.accelerator=cpu"],
            "torchrun started processes (4), but got 1 on 1 machines: give --trainer",
        ),
        (["--trainer.devices=2"], "but got 2 on 1 machines: give --trainer.devices 2 --trainer.num_nodes 2."),
        (["--trainer.devices=2", "--trainer.num_nodes=2", "--ckpt_path=gone.ckpt"], "gone.ckpt does not exist"),
    ],
)
def test_devices_that_torchrun_has_no_processes_for_are_told_before_there_is_a_run(
    options: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("project.cli.follow_parent", lambda: None)
    monkeypatch.setattr("project.telling.leave_at_once", lambda code: None)  # it would end the tests
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config=configs/lenet.yaml", "--config=configs/ddp.yaml", *options, f"--runs_dir={tmp_path}"])
    assert stop.value.code == 2
    assert told in capsys.readouterr().err.strip().splitlines()[-1]
    assert not list(tmp_path.iterdir())
