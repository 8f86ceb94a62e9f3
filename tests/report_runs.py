"""Write run directories like those of callbacks, in a second and without training."""

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from project.runs.config import RESULTS

CLASSES = ("cat", 'a <b>&"$x$', "déjà vu")
STEPS = 10  # per epoch
PARAMETERS = ("conv1.weight", "conv1.bias", "conv2.weight", "fc.weight", "fc.bias")
PICTURES = {
    "kernels_colour/conv1": (3, 20, 30),
    "kernels/conv1": (3, 60, 40),
    "kernels/conv2": (3, 200, 300),
    "kernels_split/conv1": (3, 60, 60),
    "feature_maps/conv1": (3, 150, 1124),
    "grad_cam/conv2": (3, 100, 400),
    "occlusion": (3, 100, 200),
    "training_batch": (1, 90, 500),
    "mistakes/val": (3, 120, 600),
    "roc/val": (3, 300, 300),
    "gradient_flow": (3, 200, 700),
}  # drawn after the last step, except training_batch
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


def write_run(
    folder: Path,
    epochs: int = 3,
    planned: int = 3,
    seed: int = 4,
    classes: Sequence[str] = CLASSES,
    pictures: bool = True,
) -> Path:
    """Write a run with the outputs of all callbacks."""
    write_config(folder, planned, seed)
    random = np.random.default_rng(seed)
    with SummaryWriter(folder) as writer:
        for epoch in range(epochs):
            write_epoch(writer, epoch, 0.9 / (epoch + 1), min(0.5 + 0.1 * epoch + seed / 1000, 1), random)
        if pictures:
            for tag, shape in PICTURES.items():
                step = (epochs - (tag == "training_batch")) * STEPS
                writer.add_image(tag, random.integers(0, 256, shape, np.uint8), step)
    write_tables(folder, "val", classes, random)
    return folder


def write_epoch(writer: SummaryWriter, epoch: int, loss: float, accuracy: float, random: np.random.Generator) -> None:
    """Write the scalars and histograms of an epoch."""
    for step in range(epoch * STEPS, (epoch + 1) * STEPS, 5):
        writer.add_scalar("lr-SGD/default", 0.1 * math.cos(step / 100), step)
        writer.add_scalar("lr-SGD/default-momentum", 0.9, step)
        writer.add_scalar("train/loss_step", loss * 1.1, step)
    last = (epoch + 1) * STEPS - 1
    scalars = {"train/loss": loss, "train/acc": accuracy, "val/loss": loss * 1.2, "val/acc": accuracy - 0.05}
    scalars |= {
        "time/train_seconds": 4.5,
        "time/val_seconds": 0.5,
        "time/images_per_second": 300 + epoch,
        "mine": epoch,
    }
    for tag, value in ({"epoch": epoch} | scalars).items():
        writer.add_scalar(tag, value, last)
    for i, name in enumerate(PARAMETERS):
        for kind, scale in (("weights", 0.1), ("gradients", 0.01 * (i + 1)), ("updates", 1e-4)):
            writer.add_histogram(
                f"{kind}/{name}", torch.from_numpy(random.normal(0, scale / (epoch + 1), 500)), last + 1
            )
    for layer in ("conv1", "conv2"):
        writer.add_histogram(f"activations/{layer}", np.abs(random.normal(size=500)), last + 1)


def write_resumed_run(folder: Path) -> Path:
    """Write a run that was stopped within its third epoch, and resumed an hour later from the end of the second."""
    write_config(folder, planned=4)
    random = np.random.default_rng(0)
    with SummaryWriter(folder) as writer:
        for epoch in range(3):
            write_epoch(writer, epoch, 9.0, 0.1 * epoch, random)
        writer.add_image("kernels/a", random.integers(0, 256, (3, 9, 8), np.uint8), 2 * STEPS - 1)
        writer.add_image("kernels/a", random.integers(0, 256, (3, 9, 9), np.uint8), 3 * STEPS)
    (file,) = folder.glob("*tfevents*")
    file.rename(folder / "events.out.tfevents.1")
    with SummaryWriter(folder, purge_step=2 * STEPS + 1) as writer:  # images drawn after the epoch have step 2 * STEPS
        for epoch in (2, 3):
            write_epoch(writer, epoch, 1.0, 0.5 + 0.1 * epoch, random)
    return folder


def write_tables(folder: Path, stage: str, classes: Sequence[str], random: np.random.Generator) -> None:
    """Write the CSV files of classes, confusions and mistakes; the last class is never predicted."""
    counts = random.integers(0, 9, (len(classes), len(classes)))
    counts[:, -1] = 0
    rows = [[name, counts[i].sum(), 0.5, 0.75, 0.6, 0.25] for i, name in enumerate(classes)]
    rows[-1][3] = ""
    _write(folder / f"class_report_{stage}.csv", ["class", "images", "recall", "precision", "f1", "loss"], rows)
    matrix = [[name, *counts[i]] for i, name in enumerate(classes)]
    _write(folder / f"confusion_matrix_{stage}.csv", [r"true \ predicted", *classes], matrix)
    mistakes = [
        [f"val/{name}/{i}.png", name, classes[0], 0.99 - i / 100, 4.5] for i in range(30) for name in classes[1:2]
    ]
    _write(folder / f"mistakes_{stage}.csv", ["path", "true", "predicted", "confidence", "loss"], mistakes)
    pixels = random.integers(0, 256, (len(mistakes) * 8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(folder / f"mistakes_{stage}.png")


def write_test(run: Path, accuracy: float = 0.625, time: str = "2026-11-21_12-00-00") -> Path:
    """Write the files of the command test."""
    folder = write_config(run / "test" / time, weights=f"{run}/checkpoints/best.ckpt")
    with SummaryWriter(folder) as writer:
        writer.add_scalar("test/acc", accuracy, 0)
        writer.add_image("confusion_matrix/test", np.full((3, 40, 40), 99, np.uint8), 0)
    _write(folder / "metrics.csv", ["epoch", "step", "test/acc"], [[0, 0, accuracy]])
    (folder / RESULTS).write_text(json.dumps({"metrics": {"test/acc": accuracy}}))
    write_tables(folder, "test", CLASSES, np.random.default_rng(0))
    return folder


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
