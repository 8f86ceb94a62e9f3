"""Export a classifier to a file that runs without this project's code."""

import copy
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atomic_files import write_atomically
from lightning_modules import ImageClassifier
from lightning_modules.tta import mean_over_views, probabilities
from project.errors import RunError, shortened

TOLERANCE = 1e-4  # of a probability; a different order of summation changes it by about 1e-6
BATCHES = (1, 2, 7, 30)  # batch sizes that a file is checked with
INPUT, OUTPUT = "images", "probabilities"
DYNAMIC = {INPUT: {0: torch.export.Dim.DYNAMIC}}  # any number of images
PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # for ONNX


class Probabilities(nn.Module):
    """A classifier's network with normalisation, test-time augmentation and softmax.

    Input: uint8 ``(N, C, H, W)``. Output: float32 ``(N, num_classes)``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, classifier: ImageClassifier) -> None:
        super().__init__()
        self.network = copy.deepcopy(classifier.network).to(memory_format=torch.contiguous_format).requires_grad_(False)
        self.tta = classifier.tta
        self.register_buffer("mean", classifier.mean)
        self.register_buffer("std", classifier.std)

    def forward(self, images: Tensor) -> Tensor:
        return probabilities(mean_over_views(self.network, (images / 255 - self.mean) / self.std, self.tta))


def export_classifier(classifier: ImageClassifier, kind: str, path: Path) -> float:
    """Write a classifier to a file, and return the largest difference of its probabilities from the classifier's.

    Class names and image size are stored in the file as JSON.

    Args:
        classifier: On the CPU, in eval mode.
        kind: A format of ``WRITERS``.
        path: The file. It is written under another name, checked, and renamed.

    Raises:
        RunError: The network cannot be exported to this format, its probabilities differ by more than TOLERANCE, or a
            package is missing.
    """
    facts = {name: json.dumps(classifier.hparams[name]) for name in ("class_names", "image_size")}
    name = type(classifier.network).__name__
    images = varied_images(sum(BATCHES), classifier.hparams["image_size"], len(classifier.mean))
    if kind == "onnx" and (missing := [package for package in PACKAGES if find_spec(package) is None]):
        raise RunError(f"Expected {', '.join(missing)} for --format onnx. Use pip install {' '.join(missing)}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path, ".partial.pt2") as partial:  # the suffix that torch.export expects
        try:
            WRITERS[kind](Probabilities(classifier).eval(), images[:2], facts, partial)
            difference = greatest_difference(classifier, READERS[kind](partial), images)
        except OSError:
            raise
        except Exception as error:  # torch and the runtimes raise many exceptions for unsupported networks
            raise RunError(
                f"Expected a network that {kind} supports, but {name} cannot be exported ({shortened(_root(error))}). "
                "Try another --format."
            ) from error
        if not difference <= TOLERANCE:  # also true for NaN
            raise RunError(
                f"Expected {kind} to give the probabilities of the checkpoint within {TOLERANCE:g}, but for {name} "
                f"they differ by {difference:.2g}. Nothing was written. Try another --format."
            )
    return difference


def varied_images(count: int, size: int, channels: int = 3) -> Tensor:
    """Return random uint8 images ``(count, channels, size, size)`` of varying smoothness."""
    generator = torch.Generator().manual_seed(0)
    blocks = [torch.rand(1, channels, 2 ** (i % 6), 2 ** (i % 6), generator=generator) for i in range(count)]
    return torch.cat([F.interpolate(block * 255, size=(size, size)).to(torch.uint8) for block in blocks])


def greatest_difference(classifier: ImageClassifier, exported: Callable[[Tensor], Any], images: Tensor) -> float:
    """Return the largest difference of the probabilities of an exported file, over batches of ``BATCHES`` images."""
    differences = []
    for batch in images.split(BATCHES):
        expected = classifier.classify(batch)
        got = torch.as_tensor(exported(batch))
        if got.shape != expected.shape:
            raise ValueError(f"Expected probabilities of shape {tuple(expected.shape)}, but got {tuple(got.shape)}.")
        differences.append((got - expected).abs().max())
    return torch.stack(differences).max().item()


def _write_torch_export(module: Probabilities, images: Tensor, facts: dict[str, str], path: Path) -> None:
    program = torch.export.export(module, (images,), dynamic_shapes=DYNAMIC)
    torch.export.save(program, path, extra_files=facts)


def _write_onnx(module: Probabilities, images: Tensor, facts: dict[str, str], path: Path) -> None:
    program = torch.onnx.export(
        *(module, (images,)),
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=DYNAMIC,
        dynamo=True,
        verbose=False,
    )
    assert program is not None, "dynamo returns a program"
    program.model.metadata_props.update(facts)
    program.save(path, external_data=False)


def _read_torch_export(path: Path) -> Callable[[Tensor], Any]:
    return torch.export.load(path).module()


def _read_onnx(path: Path) -> Callable[[Tensor], Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run([OUTPUT], {INPUT: images.numpy()})[0]


# arguments of a writer: a module, example images (2, C, H, W), metadata and the path
WRITERS = {"torch_export": _write_torch_export, "onnx": _write_onnx}
READERS = {"torch_export": _read_torch_export, "onnx": _read_onnx}  # each returns a function of images


def _root(error: BaseException) -> BaseException:
    return error if error.__cause__ is None else _root(error.__cause__)
