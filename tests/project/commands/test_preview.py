from pathlib import Path

import numpy as np
from command_line import stop_of
from PIL import Image

from datamodules import RandomCrop, SampleDataModule
from project.__main__ import main
from project.commands.preview import draw


def test_preview_writes_an_image_and_prints_its_path(sample_root: Path, tmp_path: Path, capsys) -> None:
    options = ["--config=configs/lenet.yaml", "--data=datamodules.SampleDataModule", f"--data.root={sample_root}"]
    path = main(["preview", *options, "--images=3", "--epochs=2", f"--output={tmp_path / 'new' / 'grid.png'}"])
    assert f"Preview: {path}" in capsys.readouterr().out
    with Image.open(path) as image:
        assert min(image.size) > 200


def test_images_of_other_settings_remain(tmp_path: Path, capsys) -> None:
    options = ["--data=datamodules.SampleDataModule", f"--data.root={tmp_path}", "--images=1", "--epochs=1"]
    names = [main(["preview", *options]).name for _ in range(3)]
    assert names == ["preview.png", "preview_2.png", "preview_3.png"]
    (tmp_path / "mine.png").write_text("mine")
    code, err = stop_of(["preview", *options, f"--output={tmp_path / 'mine.png'}"], capsys)
    assert code == 2
    assert f"Expected a new file at --output, but {tmp_path / 'mine.png'} exists." in err
    assert (tmp_path / "mine.png").read_text() == "mine"


def test_each_row_is_an_image_and_its_augmented_versions(sample_root: Path) -> None:
    data = SampleDataModule(root=str(sample_root), batch_transforms=[RandomCrop(4)])
    data.prepare_data()
    data.setup("fit")
    axes = np.array(draw(data, 4, 3).axes).reshape(4, 4)
    assert [axis.get_title() for axis in axes[0]] == ["on disk", "epoch 0", "epoch 1", "epoch 2"]
    for row in axes:
        plain, *augmented = (np.asarray(axis.images[0].get_array()) for axis in row)
        assert row[0].get_ylabel() in data.class_names
        for image in augmented:  # a shift preserves most of the digit's pixels, within 1/255
            assert not np.allclose(image, plain, atol=1e-3)
            offsets = [(y, x) for y in range(-4, 5) for x in range(-4, 5)]
            padded = np.pad(plain, ((4, 4), (4, 4), (0, 0)))
            assert any(np.allclose(padded[4 + y : 36 + y, 4 + x : 36 + x], image, atol=1e-4) for y, x in offsets)
