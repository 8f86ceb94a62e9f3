"""Commands on images that are not RGB."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from project.__main__ import main

CHANNELS = {1: "L", 4: "RGBA"}


@pytest.mark.parametrize("channels", CHANNELS)
def test_grey_and_rgba_images_are_trained_on_drawn_tested_predicted_and_exported(
    channels: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for i in range(30):
        path = tmp_path / "images" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(100 * (i % 2), 100 * (i % 2) + 100, (32, 32, channels), np.uint8)
        Image.fromarray(pixels.squeeze(), CHANNELS[channels]).save(path)
    Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(tmp_path / "photo.jpg")
    options = [
        "--data=datamodules.FolderDataModule",
        f"--data.root={tmp_path / 'images'}",
        f"--data.channels={channels}",
    ]
    options += ["--data.num_workers=0", "--data.batch_size=8", f"--runs_dir={tmp_path / 'runs'}", "--report=false"]
    options += ["--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--callbacks.kernels.every_n_epochs=1"]
    more = ["--data.batch_transforms+=datamodules.MixUp", "--data.eval_transforms=[torchvision.transforms.v2.ToImage]"]
    run = main(["fit", "--config=configs/lenet.yaml", *options, *more]).run_dir
    for name in ("feature_maps", "grad_cam", "kernels", "mistakes", "training_batch"):
        assert list((run / "pictures" / name).rglob("*.png")), name
    assert "could not draw" not in "".join(capsys.readouterr())
    main(["test", f"--run={run}", "--report=false"])
    folder = main(["predict", "--run", str(run), str(tmp_path / "photo.jpg"), str(tmp_path / "images/a/0.png")])
    assert len(json.loads((folder / "predictions.json").read_text())["images"]) == 2
    main(["export", "--run", str(run), "--format=torch_export"])
    assert f"uint8 (N, {channels}, 32, 32), N >= 1" in capsys.readouterr().out
    main(["preview", *options[:5], "--images=2", "--epochs=2"])
    with pytest.raises(SystemExit):
        main(["test", f"--run={run}", "--report=false", "--data.channels=3"])
    assert f"Expected --data.channels {channels}, as the checkpoint was trained, but got 3" in capsys.readouterr().err
