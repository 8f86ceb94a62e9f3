"""Write run directories like those of fit with all callbacks, without training."""

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from project.runs.config import RESULTS

CLASSES = ("cat", 'a <b>&"$x$', "déjà vu")
STEPS = 10  # per epoch
PARAMETERS = ("conv1.weight", "conv1.bias", "conv2.weight", "fc.weight", "fc.bias")
PICTURES = {
    "kernels_colour/conv1": (20, 30, 3),
    "kernels/conv1": (60, 40, 3),
    "kernels/conv2": (200, 300, 3),
    "kernels_split/conv1": (60, 60, 3),
    "feature_maps/conv1": (150, 1124, 3),
    "grad_cam/conv2": (100, 400, 3),
    "occlusion": (100, 200, 3),
    "training_batch": (90, 500, 3),
    "mistakes/val": (120, 600, 3),
    "roc/val": (300, 300, 3),
    "gradient_flow": (200, 700, 3),
    "mine": (9, 9, 3),
}
QUANTILES = ["minimum", "16%", "median", "84%", "maximum"]
CONFIG = """# lightning.pytorch==2.6.6
seed_everything: {seed}
trainer:
  max_epochs: {planned}
  max_steps: -1
  limit_test_batches: null
  callbacks:
  - class_path: callbacks.FeatureMaps
    init_args: {{num_images: {seed}}}
model:
  class_path: lightning_modules.ImageClassifier
  init_args:
    network: {{class_path: lightning_modules.networks.ResNet, init_args: {{depth: 20}}}}
    pretrained: null
data:
  class_path: datamodules.SampleDataModule
  init_args: {{root: '</pre><script>alert(1)</script>'}}
runs_dir: {runs}
ckpt_path: {weights}
"""


def write_config(folder: Path, planned: int = 3, seed: int = 4, weights: str = "null") -> Path:
    """Write the config of a run, which exists from its start."""
    folder.mkdir(parents=True)
    text = CONFIG.format(planned=planned, seed=seed, runs=folder.parent, weights=weights)
    (folder / "config.yaml").write_text(text)
    return folder


def write_run(folder: Path, epochs: int = 3, planned: int = 3, seed: int = 4, classes: Sequence[str] = CLASSES) -> Path:
    """Write a run with the files of all callbacks."""
    write_config(folder, planned, seed)
    random = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for epoch in range(epochs):
        loss, accuracy = 0.9 / (epoch + 1), min(0.5 + 0.1 * epoch + seed / 1000, 1)
        for step in range(epoch * STEPS, (epoch + 1) * STEPS, 5):
            rows.append({"step": step, "lr-SGD/default": 0.1 * math.cos(step / 100), "lr-SGD/default-momentum": 0.9})
            rows.append({"step": step, "epoch": epoch, "train/loss_step": loss * 1.1})
        last = {"step": (epoch + 1) * STEPS - 1, "epoch": epoch}
        rows.append(last | {"val/loss": loss * 1.2, "val/acc": accuracy - 0.05})
        rows.append(
            last | {"train/loss": loss, "train/acc": accuracy, "time/images_per_second": 300 + epoch, "mine": 1}
        )
    write_metrics(folder, rows)
    tags = [f"{kind}/{name}" for kind in ("weights", "gradients", "updates") for name in PARAMETERS]
    write_distributions(folder, [*tags, "activations/conv1"], range(1, epochs + 1))
    for tag, shape in PICTURES.items():
        write_picture(folder, tag, epochs, shape, f"Pixels of {tag}" if tag != "mine" else "")
    write_tables(folder, "val", classes, random)
    return folder


def write_metrics(folder: Path, rows: Sequence[dict[str, object]]) -> None:
    """Write metrics.csv, with a column for each scalar."""
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, sorted({tag for row in rows for tag in row}))
        writer.writeheader()
        writer.writerows(rows)


def write_distributions(folder: Path, tags: Sequence[str], epochs: Sequence[int], scale: float = 1) -> None:
    """Append quantiles of tensors to distributions.csv."""
    file = folder / "distributions.csv"
    rows = [
        [tag, epoch, epoch * STEPS, 9, scale, *(scale * x for x in range(-2, 3))] for epoch in epochs for tag in tags
    ]
    with file.open("a", newline="") as lines:
        header = [["tag", "epoch", "step", "count", "rms", *QUANTILES]]
        csv.writer(lines).writerows([] if lines.tell() else header)
        csv.writer(lines).writerows(rows)


def write_picture(folder: Path, tag: str, epoch: int, shape: tuple[int, ...] = (9, 9, 3), caption: str = "") -> Path:
    """Write a picture of random pixels as callbacks do."""
    file, info = folder / "pictures" / tag / f"epoch_{epoch:04}.png", PngInfo()
    file.parent.mkdir(parents=True, exist_ok=True)
    info.add_itxt("Description", caption)
    pixels = np.random.default_rng(epoch).integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels).save(file, pnginfo=info)
    return file


def write_tables(folder: Path, stage: str, classes: Sequence[str], random: np.random.Generator) -> None:
    """Write the CSV files of classes, confusions and mistakes; the last class is never predicted."""
    counts = random.integers(0, 9, (len(classes), len(classes)))
    counts[:, -1] = 0
    rows = [[name, counts[i].sum(), 0.5, 0.75, 0.6, 0.25] for i, name in enumerate(classes)]
    rows[-1][3] = ""
    _write(folder / f"class_report_{stage}.csv", ["class", "images", "recall", "precision", "f1", "loss"], rows)
    matrix = [[name, *counts[i]] for i, name in enumerate(classes)]
    _write(folder / f"confusion_matrix_{stage}.csv", [r"true \ predicted", *classes], matrix)
    mistakes = [[f"val/{classes[1]}/{i}.png", classes[1], classes[0], 0.99 - i / 100, 4.5] for i in range(30)]
    _write(folder / f"mistakes_{stage}.csv", ["path", "true", "predicted", "confidence", "loss"], mistakes)


def write_test(run: Path, accuracy: float = 0.625, time: str = "2026-11-21_12-00-00", epoch: int = 2) -> Path:
    """Write the files of the command test."""
    weights = f"{run}/checkpoints/best.ckpt"
    folder = write_config(run / "test" / time, weights=weights)
    write_metrics(folder, [{"epoch": 0, "step": 0, "test/acc": accuracy}])
    (folder / RESULTS).write_text(
        json.dumps({"checkpoint": weights, "epoch": epoch, "metrics": {"test/acc": accuracy}})
    )
    write_tables(folder, "test", CLASSES, np.random.default_rng(0))
    write_picture(folder, "roc/test", epoch, caption="Pixels of roc/test")
    return folder


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
