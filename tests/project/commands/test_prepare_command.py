import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from command_line import stop_of

from datamodules.preparation.index import read_index
from datamodules.reading.png import decode_pngs, encode_pngs
from project.__main__ import main


def test_prepare_takes_the_options_of_fit_and_prints_a_summary(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--config=configs/resnet.yaml", f"--data.root={tmp_path / 'data'}", f"--data.archive={archive}"]
    data = main(["prepare", *options])
    out = capsys.readouterr().out
    assert len(read_index(tmp_path / "data/train.txt")) == 450
    for row in (["airplane", "45", "5", "10"], ["all", "450", "50", "100"]):
        assert row in [line.strip(" │").replace("│", " ").split() for line in out.splitlines()]
    numbers = yaml.safe_load("\n".join(line for line in out.splitlines() if line.startswith(("mean:", "std:"))))
    np.testing.assert_allclose(numbers["mean"], data.mean, atol=1e-4)
    np.testing.assert_allclose(numbers["std"], data.std, atol=1e-4)
    for part in ("size: 32", "official", "Identical images in more than one of train, val and test: 0", "ready after"):
        assert part in out


@pytest.mark.parametrize("keeps_time", [True, False])
def test_verify_finds_an_image_that_changed(
    keeps_time: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["prepare", "--data=datamodules.SampleDataModule", f"--data.root={tmp_path}", "--verify"]
    main(command)
    assert "Verified: every image" in capsys.readouterr().out
    file = tmp_path / read_index(tmp_path / "test.txt")[0][0]
    content, stat = file.read_bytes(), file.stat()
    other = encode_pngs(255 - decode_pngs([content]))[0]
    file.write_bytes(other)
    if keeps_time:
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    code, err = stop_of(command, capsys)
    assert (code, err.count("\n")) == (2, 1)
    assert "have changed. If that was intended" in err


def test_interruption_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("datamodules.sample.convert", interrupt)
    code, err = stop_of(["prepare", "--data=datamodules.SampleDataModule", f"--data.root={tmp_path}"], capsys)
    assert code == 130
    assert "Interrupted" in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "Expected a value for data"),
        (["--data=datamodules.FolderDataModule", "--data.root=nowhere"], "nowhere does not exist"),
        (["--config=configs/resnet.yaml", "--verfy"], "`python -m project prepare --help` lists the options."),
    ],
)
def test_mistakes_are_reported_in_one_line(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = stop_of(["prepare", *args], capsys)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
