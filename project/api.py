"""Train and classify from Python: ``from project import fit, load``."""

import html
import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageOps
from rich import get_console
from torch import Tensor, nn

from callbacks.tools.layers import find_layers, hooked
from datamodules.reading.files import find_files
from project.cli.cli import run
from project.cli.error_handling import raise_errors
from project.errors import RunError
from project.inference.predict import load_classifier, predict_files, reader_of
from project.runs.folders import REPORT, best_checkpoint, find_run, run_of_checkpoint
from project.runs.results import Result, read_result

Images = str | Path | Image.Image | Iterable[str | Path | Image.Image]


class Run(NamedTuple):
    """A finished training; a notebook shows its report."""

    path: Path  # run directory
    metrics: dict[str, float]  # last value of each metric
    result: Result  # such as ``val`` and ``test``: accuracies of the best checkpoint

    def _repr_html_(self) -> str:
        if not (self.path / REPORT).is_file():  # with ``"report": False``
            return html.escape(str(self))
        page = html.escape((self.path / REPORT).read_text(encoding="utf-8"))
        return f'<iframe srcdoc="{page}" width="100%" height="800"></iframe>'


class Prediction(NamedTuple):
    """The classification of an image."""

    name: str  # of the most probable class
    probability: float  # of that class
    probabilities: dict[str, float]  # by class name
    file: str | None  # None for a PIL image


def fit(*settings: str | Path | Mapping[str, Any]) -> Run:
    """Train as ``python -m project fit`` does, and return the run.

    Args:
        settings: Paths of configs, and options by name, such as ``{"trainer.max_epochs": 3}``; later ones override
            earlier ones. A value is text as on the command line, or a class, or anything that JSON can represent.

    Raises:
        RunError: A setting or the data is invalid, with the message of the command line.
    """
    args = ["fit", "--trainer.devices=1"] if get_console().is_jupyter else ["fit"]  # a notebook starts no processes
    for each in settings:
        if isinstance(each, Mapping):
            args += [f"--{name}={_text(name, value)}" for name, value in each.items()]
        else:
            args += ["--config", str(each)]
    cli = run(args, errors=raise_errors)
    metrics = {name: float(value) for name, value in cli.trainer.callback_metrics.items()}
    return Run(cli.run_dir, metrics, read_result(cli.run_dir)[0])


def load(run: str | Path = "last", runs_dir: str | Path = "runs") -> "Classifier":
    """Return the best classifier of a run.

    Args:
        run: "last", "best", a run directory, the end of its path, or a checkpoint.
        runs_dir: Directory of all runs.

    Raises:
        RunError: The run does not exist, or has no checkpoint of a classifier.
    """
    with raise_errors(["predict"]):
        if Path(run).is_file():
            return Classifier(run_of_checkpoint(Path(run)), Path(run))
        folder = find_run(str(run), Path(runs_dir))
        return Classifier(folder, best_checkpoint(folder))


class Classifier:
    """A trained classifier, which reads images as its run did.

    Attributes:
        module: The ``ImageClassifier``; its ``network`` is a plain ``torch.nn.Module``.
        class_names: Name of each class.
    """

    def __init__(self, run: Path | None, checkpoint: Path) -> None:
        self.run = run
        self.module = load_classifier(run, checkpoint)
        self.class_names = self.module.class_names

    def predict(self, images: Images) -> list[Prediction]:
        """Classify images of any size: files, folders, globs and PIL images.

        Raises:
            RunError: A file cannot be read, or there is none.
        """
        several = [images] if isinstance(images, str | Path | Image.Image) else list(images)
        with raise_errors(["predict"]), tempfile.TemporaryDirectory() as folder:
            paths = [_as_file(each, Path(folder, f"{number}.png")) for number, each in enumerate(several)]
            found = [find_files([path]) for path in paths]
            files = [file for each in found for file in each[0]]  # a repeated image has several predictions
            answers: dict[str, Any] = {file: problem for each in found for file, problem in each[1].items()}
            if not answers:
                reader = reader_of(self.run, self.module, list(dict.fromkeys(files)))
                answers = dict(predict_files(self.module, reader))
            for file, answer in answers.items():
                if isinstance(answer, str):
                    raise RunError(f"Expected images, but {file} {answer}.")
            if not files:
                raise RunError(f"Expected images, but found none in {', '.join(paths) or 'an empty list'}.")
            return [self._prediction(answers[file], None if file.startswith(folder) else file) for file in files]

    def feature_maps(self, image: str | Path | Image.Image, layers: str = "*") -> dict[str, Tensor]:
        """Return the output of each layer, ``(C, H, W)``, for an image.

        Args:
            image: A file, or a PIL image.
            layers: Shell pattern of names as in ``module.network.named_modules()``.

        Raises:
            RunError: No layer has such a name, or the image cannot be read.
        """
        maps: dict[str, Tensor] = {}

        def keep(name: str, module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                maps.setdefault(name, output[0].float().cpu().clone())  # before an in-place activation

        with raise_errors(["predict"]), hooked(find_layers(self.module, [layers]), keep):
            self.predict(image)
        return maps

    def _prediction(self, probabilities: Any, file: str | None) -> Prediction:
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        of_classes = dict(zip(self.class_names, probabilities, strict=True))
        return Prediction(self.class_names[best], probabilities[best], of_classes, file)


def _text(name: str, value: Any) -> str:
    """Return the value of an option as on the command line."""
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    try:
        return str(value) if isinstance(value, str | Path) else json.dumps(value)
    except TypeError as error:
        raise RunError(f"Expected text, a class, or what JSON can represent for {name}, but got: {error}.") from None


def _as_file(image: str | Path | Image.Image, path: Path) -> str:
    """Return the path of an image, after writing a PIL image to ``path``."""
    if not isinstance(image, Image.Image):
        return str(image)
    upright = ImageOps.exif_transpose(image)
    (upright.convert("RGB") if upright.mode == "CMYK" else upright).save(path)
    return str(path)
