from pathlib import Path

import numpy as np
import pytest
import yaml
from command_line import stop_of
from PIL import Image

from datamodules.preparation.index import read_index
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


def test_prepare_works_without_a_recipe_and_verify_finds_damage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data=datamodules.SampleDataModule", f"--data.root={tmp_path}"]
    main(["prepare", *options, "--verify"])
    assert "Verified: every image file is as it should be" in capsys.readouterr().out
    path, _ = read_index(tmp_path / "train.txt")[0]
    Image.new("RGB", (32, 32)).save(tmp_path / path)
    with pytest.raises(SystemExit) as stopped:
        main(["prepare", *options, "--verify"])
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert f"but 1 are not: {Path(path).relative_to('images/all')} was changed. Delete this folder" in err


def test_interruption_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("datamodules.sample.convert", interrupt)
    code, err = stop_of(["prepare", "--data=datamodules.SampleDataModule", f"--data.root={tmp_path}"], capsys)
    assert code == 130
    assert "Interrupted" in err


def test_verify_reads_every_image_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / "all" / name).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (9, 7), (i, 2 * i, len(name))).save(tmp_path / "all" / name / f"{i}.png")
    main(["prepare", "--data=datamodules.FolderDataModule", f"--data.root={tmp_path / 'all'}", "--verify"])
    assert "Verified: every image file is as it should be" in capsys.readouterr().out


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
