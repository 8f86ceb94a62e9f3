"""A classifier as a file that needs none of this project's code."""

import copy
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules import ImageClassifier
from lightning_modules.tta import mean_over_views, probabilities
from project.errors import RunError, shortened
from project.inference.formats import SUFFIXES

TOLERANCE = 1e-4  # on a probability: that of a library that adds up in another order is off by about 1e-6
BATCHES = (1, 2, 7, 30)  # images in the batches that a file is checked on
INPUT, OUTPUT = "images", "probabilities"


class Probabilities(nn.Module):
    """A classifier's network with what stands around it: normalisation, views, softmax.

    Input: uint8 ``(N, 3, H, W)``, RGB. Output: float32 ``(N, num_classes)``.
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
    """Write a classifier in a format of ``WRITERS``, and return by how much a probability differs from its own at most.

    Class names and image size are in the file too, as JSON.

    Args:
        classifier: On the CPU, in eval mode.
        kind: The format.
        path: The file. It is written beside, and renamed once it is found to be good.

    Raises:
        RunError: The format cannot hold the network, or gives other probabilities.
    """
    facts = {
        "class_names": json.dumps(classifier.class_names),
        "image_size": json.dumps(classifier.hparams["image_size"]),
    }
    name = type(classifier.network).__name__
    images = varied_images(sum(BATCHES), classifier.hparams["image_size"])
    made = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.partial{SUFFIXES[kind]}")
    try:
        try:
            with _quiet():
                WRITERS[kind](Probabilities(classifier).eval(), images[:2], facts, partial)
                difference = greatest_difference(classifier, READERS[kind](partial), images)
        except OSError:
            raise
        except Exception as error:  # of what torch or a runtime cannot do with a network, they raise almost anything
            others = " or ".join(other for other in WRITERS if other != kind)
            raise RunError(
                f"Expected a network that {kind} can hold, but {name} cannot be exported ({shortened(_root(error))}). "
                f"Try --format {others}."
            ) from error
        if not difference <= TOLERANCE:  # that it is not a number counts as well
            raise RunError(
                f"Expected the probabilities of the checkpoint from {kind}, within {TOLERANCE:g}, but {name} gives "
                f"others, off by {difference:.2g}. Nothing was written; try another --format."
            )
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
        if made and not path.exists():
            path.parent.rmdir()
    return difference


def varied_images(count: int, size: int) -> Tensor:
    """Return random uint8 images ``(count, 3, size, size)``, plain to noisy, dark and bright, a kind to each batch.

    Noise alone is all one class to most networks.
    """
    generator = torch.Generator().manual_seed(0)
    images = []
    for i in range(count):
        side = min(2 ** (i % 6), size)
        values = torch.rand(1, 3, side, side, generator=generator) ** (4, 0.25, 0.25, 1)[i % 4]
        images.append((F.interpolate(values, size=(size, size)) * 255).round().to(torch.uint8))
    return torch.cat(images)


def greatest_difference(classifier: ImageClassifier, answer: Callable[[Tensor], Any], images: Tensor) -> float:
    """Return by how much a probability that a file gives differs at most, over batches of ``BATCHES`` images."""
    found = []
    for batch in images.split(BATCHES):
        expected = classifier.classify(batch)
        got = torch.as_tensor(answer(batch))
        if got.shape != expected.shape:
            raise ValueError(f"{tuple(expected.shape)} probabilities became {tuple(got.shape)}.")
        found.append((got - expected).abs().max())
    return torch.stack(found).max().item()


# What writes each format, given a module, example images (2, 3, H, W), what else is to be in the file, and its path


def _write_torch_export(module: Probabilities, images: Tensor, facts: dict[str, str], path: Path) -> None:
    program = torch.export.export(module, (images,), dynamic_shapes={INPUT: {0: torch.export.Dim.DYNAMIC}})
    torch.export.save(program, path, extra_files=facts)


def _write_torchscript(module: Probabilities, images: Tensor, facts: dict[str, str], path: Path) -> None:
    torch.jit.save(torch.jit.trace(module, images, check_trace=False), path, _extra_files=facts)


def _write_onnx(module: Probabilities, images: Tensor, facts: dict[str, str], path: Path) -> None:
    program = torch.onnx.export(
        module,
        (images,),
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes={INPUT: {0: torch.export.Dim.DYNAMIC}},
        dynamo=True,
        verbose=False,
    )
    assert program is not None, "with dynamo"
    program.model.metadata_props.update(facts)
    program.save(path, external_data=False)


WRITERS = {"torch_export": _write_torch_export, "torchscript": _write_torchscript, "onnx": _write_onnx}


# What opens each format, and returns what makes probabilities of images


def _read_torch_export(path: Path) -> Callable[[Tensor], Any]:
    return torch.export.load(path).module()


def _read_torchscript(path: Path) -> Callable[[Tensor], Any]:
    return torch.jit.load(path)


def _read_onnx(path: Path) -> Callable[[Tensor], Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run([OUTPUT], {INPUT: images.numpy()})[0]


READERS = {"torch_export": _read_torch_export, "torchscript": _read_torchscript, "onnx": _read_onnx}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep quiet about TorchScript's age, what the check finds if it matters, and torch's own use of its internals."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # a value becomes a constant
        warnings.filterwarnings("ignore", message="The tensor attributes .* were assigned during export")  # of nn.RNN
        warnings.filterwarnings("ignore", message="_check_is_size will be removed", category=FutureWarning)
        yield


def _root(error: BaseException) -> BaseException:
    """Return what an exporter wrapped in advice on exporting."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
