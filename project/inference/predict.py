"""What a run has trained, put to use: its classifier, and its way to read images."""

import importlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.pytorch import LightningModule

from datamodules.base import NOT_NORMALIZED
from datamodules.loading.file_dataset import FileDataset
from datamodules.loading.loader import ImageLoader
from datamodules.transforms.image import normalization
from datamodules.transforms.normalize import Normalize
from lightning_modules import ImageClassifier
from lightning_modules.weights.safe_load import LoadError, check_names, load_safely
from project.cli.data_options import data_parser, parse_data
from project.errors import RunError, shortened
from project.runs.config import CONFIG, load_config, setting
from project.runs.folders import paths_from_here

CHANGED = "could be read at the second try only: it changes at this moment"
NOT_FINITE = "has no probabilities: what the network makes of it is infinite or not a number"


class Reader(NamedTuple):
    """How a run reads images."""

    dataset: FileDataset
    batch_size: int
    num_workers: int
    seed: int
    precision: Any  # as --trainer.precision
    normalize: Normalize  # after its transforms


def load_classifier(run: Path | None, checkpoint: Path) -> ImageClassifier:
    """Return the classifier of a checkpoint on the CPU, in eval mode.

    Raises:
        RunError: The run's config is damaged, or the file is no checkpoint, or of a module that is no classifier.
    """
    name = None if run is None else setting(load_config(run), "model.class_path")
    if run is not None and not isinstance(name, str):
        raise RunError(f"Expected model.class_path in {run / CONFIG}, but got {name}. Give another --run.")
    try:
        if name is not None:  # a class of the user's own is found once its module is imported
            importlib.import_module(name.rpartition(".")[0])
        loaded = load_safely(checkpoint)  # for its words: torch's advise to load what is refused
        if run is None:  # whose folder is trusted
            check_names(loaded)
        module = LightningModule.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True)
    except LoadError as error:
        raise RunError(
            f"Expected the checkpoint of a run, but {checkpoint} {error}. Give one that `fit` wrote, in its run's "
            "folder: --run FOLDER."
        ) from error
    except Exception as error:  # a file that is no checkpoint raises almost anything
        raise RunError(
            f"Expected the checkpoint of a run, but {checkpoint} cannot be loaded: {shortened(error)}"
        ) from error
    if not isinstance(module, ImageClassifier):
        raise RunError(
            f"Expected the checkpoint of an ImageClassifier, but {checkpoint} is of {type(module).__name__}, which "
            "makes no probabilities of classes. Give another --run."
        )
    return module.eval()


def reader_of(run: Path | None, classifier: ImageClassifier, files: Sequence[str]) -> Reader:
    """Return how a run reads image files, or how a checkpoint that lies in none has them cropped to its size.

    Raises:
        DataError: The run's data is not as expected, and needed to know how.
    """
    size = classifier.hparams["image_size"]
    normalize = Normalize(classifier.hparams["mean"], classifier.hparams["std"])
    if run is None:
        return Reader(FileDataset(files, size), 128, 0, 0, None, normalize)
    config = load_config(run)
    seed = json.dumps(config.get("seed_everything", 0))
    options = ["--data", json.dumps(config.get("data")), "--seed_everything", seed]
    options += [f"--{key}={path}" for key, path in paths_from_here(run).items() if key.startswith("data.")]
    data, _ = parse_data(data_parser("predict"), options)
    precision = setting(config, "trainer.precision")
    if not data.normalize:  # its transforms do, if anything does
        normalize = Normalize(*NOT_NORMALIZED)
    return Reader(
        data.inference_dataset(files, size), data.batch_size, data.num_workers, data.seed, precision, normalize
    )


def check_exportable(reader: Reader, classifier: ImageClassifier) -> None:
    """Check that a file that takes uint8 images, and normalises them as a checkpoint says, can stand for a run.

    Raises:
        RunError: The transforms of the run make floats of images in another way.
    """
    transform, size = reader.dataset.transform, reader.dataset.size
    if transform is None or transform(torch.zeros(3, size, size, dtype=torch.uint8)).dtype == torch.uint8:
        return
    made = normalization(transform, size)
    after = reader.normalize
    if made is not None:
        mean = [m + s * more for m, s, more in zip(*made, after.mean, strict=True)]
        std = [s * more for s, more in zip(made[1], after.std, strict=True)]
        if np.allclose([mean, std], [classifier.hparams["mean"], classifier.hparams["std"]], atol=1e-3):
            return
    raise RunError(
        "Expected --data.eval_transforms that leave images uint8, or normalise them by the mean and std of the "
        "checkpoint, but the run's make other floats, which no exported file would. Use `predict` instead."
    )


def predict_files(
    classifier: ImageClassifier, reader: Reader, batch_size: int | None = None
) -> Iterator[tuple[str, list[float] | str]]:
    """Yield each file with the probability of each class, or with the reason why it has none.

    Batches are those of ``test`` for as many images, so that the answers are the same to the last bit.
    """
    torch.set_float32_matmul_precision("high")  # as fit and test do
    fabric = Fabric(accelerator="auto", devices=1, precision=reader.precision)
    fabric.setup_module(classifier)  # in place, for the run's precision too
    dataset = reader.dataset
    if not len(dataset):
        return
    batch_size = batch_size or reader.batch_size
    loader = ImageLoader(
        dataset,
        batch_size,
        lambda images, positions, _: (reader.normalize(images, 255 if images.dtype == torch.uint8 else 1), positions),
        fabric.device,
        num_workers=reader.num_workers if len(dataset) > batch_size else 0,  # they take a while to start
        seed=reader.seed,
    )
    following = 0
    for step, (images, positions) in enumerate(loader):
        if not len(images):
            continue
        with torch.inference_mode(), fabric.autocast():
            probabilities = classifier.predict_step((images, positions), step).float().cpu()
        finite = probabilities.isfinite().all(1)
        for position, answer, whole in zip(positions.tolist(), probabilities.tolist(), finite.tolist(), strict=True):
            yield from _problems(dataset, following, position)
            yield dataset.files[position], answer if whole else NOT_FINITE
            following = position + 1
    yield from _problems(dataset, following, len(dataset))


def _problems(dataset: FileDataset, start: int, stop: int) -> Iterator[tuple[str, str]]:
    for position in range(start, stop):
        yield dataset.files[position], dataset.problem(position) or CHANGED
