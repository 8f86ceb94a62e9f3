"""A LightningDataModule that knows nothing of this project, through all commands that use data."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from project.__main__ import main


@pytest.mark.slow
def test_a_plain_data_module_works_for_every_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data=plain.PlainDataModule", "--data.batch_size=32"]
    options = ["--config=configs/lenet.yaml", *data, f"--runs_dir={tmp_path / 'runs'}"]
    run = main(["fit", *options, "--trainer.max_epochs=2", "--trainer.enable_progress_bar=false"]).run_dir
    assert (run / "report.html").is_file()
    main(["fit", f"--run={run}", "--trainer.max_epochs=3", "--trainer.enable_progress_bar=false"])
    for command in ("validate", "test"):
        (metric,) = main([command, f"--run={run}"]).trainer.callback_metrics.keys() & {"val/acc", "test/acc"}
        assert metric.endswith("/acc")
    for name, value in (("dark", 60), ("bright", 200)):
        Image.fromarray(np.full((20, 30, 3), value, np.uint8)).save(tmp_path / f"{name}.png")
    output = main(["predict", f"--run={run}", *(str(tmp_path / f"{name}.png") for name in ("dark", "bright"))])
    with (output / "predictions.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2
    assert main(["report", str(run)])
    assert main(["export", f"--run={run}", "--format=torch_export", f"--output={tmp_path / 'model.pt2'}"])
    preview = main(["preview", *data, "--images=2", "--epochs=2", f"--output={tmp_path / 'preview.png'}"])
    with Image.open(preview) as image:
        assert min(image.size) > 100
    assert json.loads((run / "run.json").read_text())["data"]["class"] == "PlainDataModule"
    with pytest.raises(SystemExit):
        main(["prepare", *data])
    assert "Expected an ImageDataModule as --data, but got PlainDataModule" in capsys.readouterr().err
