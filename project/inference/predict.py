"""Load the classifier of a run, and predict the classes of image files as its ``test`` does."""

import importlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric import Fabric
from lightning.pytorch import LightningModule

from datamodules import ImageDataModule
from datamodules.errors import ImageError
from datamodules.loading.dataset import ImageDataset
from datamodules.loading.loader import ImageLoader
from datamodules.reading.read_images import read_images
from datamodules.transforms.normalize import NOT_NORMALIZED, BatchPipeline, Normalize
from lightning_modules import ImageClassifier
from lightning_modules.weights.safe_load import LoadError, check_names, load_safely
from project.cli.data_options import data_parser, parse_data
from project.errors import RunError, shortened
from project.runs.config import load_config, setting
from project.runs.folders import check_data_folder

NOT_FINITE = "has no probabilities: the output of the network is NaN or Inf"


class Reader(NamedTuple):
    """Dataset and settings with which a run reads images."""

    dataset: ImageDataset
    batch_size: int
    num_workers: int
    seed: int
    precision: Any  # --trainer.precision
    normalize: Normalize  # applied after the transforms


def load_classifier(run: Path | None, checkpoint: Path) -> ImageClassifier:
    """Return the classifier of a checkpoint on the CPU, in eval mode.

    Raises:
        RunError: The config cannot be read, or the file is not a checkpoint of an ImageClassifier.
    """
    name = None if run is None else setting(load_config(run), "model.class_path")
    try:
        if isinstance(name, str):  # jsonargparse finds a user's class only after its module is imported
            importlib.import_module(name.rpartition(".")[0])
        loaded = load_safely(checkpoint)  # for its message: torch's suggests to load the file unsafely
        if run is None:  # a run directory is trusted
            check_names(loaded)
        module = LightningModule.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # an invalid file may raise almost any exception
        reason = str(error) if isinstance(error, LoadError) else f"cannot be loaded: {shortened(error)}"
        raise RunError(f"Expected the checkpoint of a run, but {checkpoint} {reason}") from error
    if not isinstance(module, ImageClassifier):
        kind = type(module).__name__
        raise RunError(f"Expected the checkpoint of an ImageClassifier, but {checkpoint} is of {kind}.")
    return module.eval()


def reader_of(run: Path | None, classifier: ImageClassifier, files: Sequence[str]) -> Reader:
    """Return a reader with the settings of a run.

    Without a run, or with a DataModule that is no ImageDataModule, it crops images to the checkpoint's image size.

    Raises:
        DataError: The data of the run is missing or invalid, and the size of its images is not configured.
    """
    size, channels = classifier.hparams["image_size"], len(classifier.mean)
    normalize = Normalize(classifier.hparams["mean"], classifier.hparams["std"])
    if run is None:
        return Reader(ImageDataset.of_files(files, size, channels=channels), 128, 0, 0, None, normalize)
    config = load_config(run)
    seed = json.dumps(config.get("seed_everything", 0))
    options = ["--data", json.dumps(config.get("data")), "--seed_everything", seed]
    data, _ = parse_data(data_parser("predict"), options)
    precision = setting(config, "trainer.precision")
    if not isinstance(data, ImageDataModule):  # the user's own, whose way of reading files is unknown
        dataset = ImageDataset.of_files(files, size, channels=channels)
        return Reader(dataset, getattr(data, "batch_size", 128), 0, 0, precision, normalize)
    if data.eval_transforms and data.folder.size is None:  # their size is that of the run's images
        check_data_folder(run, setting(config, "data.init_args") or {})
    if not data.normalize:  # the transforms normalise, if any
        normalize = Normalize(*NOT_NORMALIZED)
    size = data.folder.size or (data.prepared.size if data.eval_transforms else size)
    dataset = ImageDataset.of_files(files, size, data.folder.resize or "crop", data.transform_of("test"), channels)
    return Reader(dataset, data.batch_size, data.num_workers, data.seed, precision, normalize)


def check_exportable(reader: Reader, classifier: ImageClassifier) -> None:
    """Check that an exported file, which takes uint8 images and normalises them itself, can reproduce the transforms.

    Raises:
        RunError: The transforms of the run convert images to floats in another way.
    """
    transform, size, channels = reader.dataset.transform, reader.dataset.size, reader.dataset.channels
    if transform is None:
        return
    colours = torch.linspace(0, 255, 2 * channels).byte().view(2, channels, 1, 1)
    images = torch.stack([transform(colour.repeat(1, size, size)) for colour in colours])
    if images.dtype == torch.uint8:
        return
    centres = reader.normalize(images, 1)[..., images.shape[-2] // 2, images.shape[-1] // 2]
    first_views = centres.flatten(1)[:, :channels]
    if torch.allclose(first_views, classifier.normalize(colours).flatten(1), atol=0.01):
        return
    raise RunError(
        "Expected --data.eval_transforms that keep images uint8, or normalise them by the mean and std of the "
        "checkpoint, but those of the run convert images in another way. Use `predict` instead."
    )


def predict_files(
    classifier: ImageClassifier, reader: Reader, batch_size: int | None = None
) -> Iterator[tuple[str, list[float] | str]]:
    """Yield each file with the probability of each class, then those without, with the reason.

    Batches are the same as in ``test``, so that the results are equal to the bit.
    """
    torch.set_float32_matmul_precision("high")  # as fit and test do
    fabric = Fabric(accelerator="auto", devices=1, precision=reader.precision)
    fabric.setup_module(classifier)  # in place, with the precision of the run
    dataset = reader.dataset
    if not len(dataset):
        return
    batch_size = batch_size or reader.batch_size
    loader = ImageLoader(
        dataset,
        batch_size,
        BatchPipeline([], reader.normalize),
        fabric.device,
        num_workers=reader.num_workers if len(dataset) > batch_size else 0,  # starting workers takes time
        seed=reader.seed,
    )
    unread = dict.fromkeys(range(len(dataset)))
    for step, (images, positions) in enumerate(loader):
        if not len(images):
            continue
        with torch.inference_mode(), fabric.autocast():
            probabilities = classifier.predict_step((images, positions), step).float().cpu()
        for position, shares in zip(positions.tolist(), probabilities, strict=True):
            del unread[position]
            yield dataset.files[position], shares.tolist() if shares.isfinite().all() else NOT_FINITE
    for position in unread:
        yield dataset.files[position], _problem(dataset, position)


def _problem(dataset: ImageDataset, position: int) -> str:
    """Return why a file could not be read."""
    errors: dict[int, ImageError] = {}
    paths = dataset.paths(torch.tensor([position]))
    read_images(paths, dataset.size, dataset.resize, errors, channels=dataset.channels)
    error = errors.get(0)
    return error.reason if error else "is being changed"
