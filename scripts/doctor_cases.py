"""Planted faults and healthy runs for the doctor's tests and benchmark; each is one change of a small training."""

import dataclasses
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningDataModule, Trainer
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import CosineAnnealingLR, CyclicLR, StepLR

from callbacks import EMA
from datamodules import CutMix, Cutout, FolderDataModule, MixUp, RandomCrop, SampleDataModule
from datamodules.preparation.cifar10_archive import CLASS_NAMES, read_batches
from lightning_modules import ImageClassifier
from lightning_modules.networks import MLP, LeNet, SoftmaxRegression, WideResNet
from lightning_modules.networks.library import ZooNetwork
from lightning_modules.networks.resnet import BasicBlock, PadShortcut, stage
from lightning_modules.optim import OneCycle, ProgressLR, WarmupCosine
from lightning_modules.optim.param_groups import ParamGroup
from project.doctor.preflight import PreFlight

QUIET: dict[str, Any] = dict.fromkeys(
    ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
)


@dataclasses.dataclass
class Case:
    """The settings of a training."""

    network: Callable[[int], nn.Module]
    data: LightningDataModule
    module: type[ImageClassifier] = ImageClassifier
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)  # of the module
    trainer: dict[str, Any] = dataclasses.field(default_factory=dict)
    callbacks: list[Callback] = dataclasses.field(default_factory=list)

    def preflight(self) -> PreFlight:
        """Examine the training."""
        doctor = PreFlight()
        self.fit(doctor)
        return doctor

    def fit(self, *callbacks: Callback, seed: int = 0, epochs: int = 6, **options: Any) -> tuple[Trainer, Any]:
        """Train with options of the Trainer, and return it and the module."""
        data = self.data
        data.setup("fit")
        linked = {name: getattr(data, name) for name in ("class_names", "mean", "std", "image_size", "class_counts")}
        settings = {"optimizer": partial(SGD, lr=0.05, momentum=0.9, weight_decay=1e-4), "lr_scheduler": OneCycle}
        torch.manual_seed(seed)
        data.seed = seed  # type: ignore[attr-defined]  # of ImageDataModule
        module = self.module(network=self.network, **(linked | settings | self.settings))
        usual = {"accelerator": "cpu", "num_sanity_val_steps": 0, "max_epochs": epochs, "log_every_n_steps": 10}
        trainer = Trainer(callbacks=[*self.callbacks, *callbacks], **(usual | QUIET | options | self.trainer))
        trainer.fit(module, datamodule=data)
        return trainer, module


class Narrow(nn.Module):
    """ResNet-20 with half the channels."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        stages = [stage(BasicBlock, PadShortcut, a, b, s, 3) for a, b, s in ((8, 8, 1), (8, 16, 2), (16, 32, 2))]
        self.inner = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), *stages)
        self.fc = nn.Linear(32, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.inner(images).mean((2, 3)))


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "lenet": LeNet,
    "mlp": partial(MLP, hidden=(128, 64), dropout=0.0, image_size=32),
    "resnet20": Narrow,
    "wide_resnet": lambda classes: nn.Sequential(nn.AvgPool2d(2), WideResNet(classes, depth=10, widen_factor=1)),
    "mobilenet": partial(ZooNetwork, function="torchvision.models.mobilenet_v3_small", image_size=32),
}
EPOCHS = {"digits": 6, "shapes": 20, "cifar": 8}  # of a healthy training
CLASSES = ("circle", "square", "triangle", "cross", "ring")


def draw_shapes(root: Path, count: int = 600) -> Path:
    """Write a folder of coloured shapes, which are easy to tell apart, more often red than blue."""
    random = np.random.default_rng(0)
    for number in range(count):
        name = CLASSES[number % len(CLASSES)]
        color = tuple(int(each) for each in random.integers((120, 60, 0), (256, 200, 140)))
        image = Image.fromarray(random.integers(0, 60, (32, 32, 3), dtype=np.uint8).astype(np.uint8))
        x, y, r = (float(each) for each in (*random.uniform(11, 21, 2), random.uniform(6, 10)))
        box, pen = (x - r, y - r, x + r, y + r), ImageDraw.Draw(image)
        if name in ("circle", "ring"):
            pen.ellipse(box, fill=color if name == "circle" else None, outline=color, width=2)
        elif name == "square":
            pen.rectangle(box, fill=color)
        elif name == "triangle":
            pen.polygon([(x, y - r), (x + r, y + r), (x - r, y + r)], fill=color)
        else:
            pen.line((x - r, y, x + r, y), fill=color, width=4)
            pen.line((x, y - r, x, y + r), fill=color, width=4)
        (root / name).mkdir(parents=True, exist_ok=True)
        image.save(root / name / f"{number}.png")
    return root


def write_cifar(archive: Path, root: Path, per_class: int = 200) -> None:
    """Write a folder of the first CIFAR-10 images of each class."""
    batch = next(iter(read_batches(archive, ["test"])))
    for label, name in enumerate(CLASS_NAMES):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in np.flatnonzero(batch.labels == label)[:per_class]:
            Image.fromarray(batch.pixels[number]).save(root / name / f"{number}.png")


def data_of(name: str, folder: Path, archive: Path | None = None) -> Any:
    """Return new data: digits, coloured shapes, or CIFAR-10 images, of which a fifth each is for val and test."""
    options: dict[str, Any] = {
        "batch_size": 64 if name == "cifar" else 32,
        "num_workers": 0,
        "batch_transforms": [RandomCrop(2)],
    }
    if name == "digits":
        return SampleDataModule(root=str(folder / "digits"), **options)
    if not (folder / name).exists():
        draw_shapes(folder / name) if archive is None or name == "shapes" else write_cifar(archive, folder / name)
    return FolderDataModule(root=str(folder / name), fractions=(0.6, 0.2, 0.2), **options)


# Changes of a case


def settings(**changes: Any) -> Callable[[Case], None]:
    """Return a change of the module's settings."""
    return lambda case: case.settings.update(changes)


def trainer(**changes: Any) -> Callable[[Case], None]:
    """Return a change of the trainer's settings."""
    return lambda case: case.trainer.update(changes)


def around(change: Callable[[nn.Module], nn.Module | None]) -> Callable[[Case], None]:
    """Return a change of the network after it is built."""

    def apply(case: Case) -> None:
        build = case.network

        def changed(classes: int) -> nn.Module:
            network = build(classes)
            return change(network) or network

        case.network = changed

    return apply


def hooked(layer: Callable[[list[nn.Module]], nn.Module], hook: Callable[..., Any]) -> Callable[[nn.Module], None]:
    """Return a change of the output of one weight layer."""

    def apply(network: nn.Module) -> None:
        layers = [each for each in network.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
        layer(layers).register_forward_hook(hook)

    return apply


class Around(nn.Module):
    """A network with functions before and after it."""

    def __init__(
        self, network: nn.Module, before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.inner, self.before, self.after = network, before, after

    def forward(self, images: Tensor) -> Tensor:
        return self.after(self.inner(self.before(images)))


def before(function: Callable[[Tensor], Tensor]) -> Callable[[Case], None]:
    """Return a change of the network's input."""
    return around(lambda network: Around(network, function, torch.positive))


def after(function: Callable[[Tensor], Tensor]) -> Callable[[Case], None]:
    """Return a change of the network's output."""
    return around(lambda network: Around(network, torch.positive, function))


class InList(nn.Module):
    """A network whose layers are in a list."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.layers, self.scale = [network], nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers[0](images) * self.scale


class AlwaysTraining(Around):
    """A network that ignores eval()."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network, torch.positive, torch.positive)

    def train(self, mode: bool = True) -> "AlwaysTraining":
        return super().train(True)


class NormalizesInEval(Around):
    """A network that normalises its input in eval mode."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network, torch.positive, torch.positive)

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images if self.training else (images - 0.5) / 0.25)


def initialized(change: Callable[[Tensor], Any]) -> Callable[[Case], None]:
    """Return a change of all weights of layers, and biases of 0."""

    def apply(network: nn.Module) -> None:
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                with torch.no_grad():
                    change(layer.weight)
                    if layer.bias is not None:
                        layer.bias.zero_()

    return around(apply)


def zero_head(network: nn.Module) -> None:
    """Set the weights of the last layer to zero."""
    nn.init.zeros_([each for each in network.modules() if isinstance(each, nn.Linear)][-1].weight)


def freeze(network: nn.Module) -> None:
    """Freeze all layers but the last."""
    *inner, _ = [each for each in network.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    for layer in inner:
        layer.requires_grad_(False)


def without_activations(network: nn.Module) -> None:
    """Replace the modules that are activations."""
    for parent in network.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU | nn.Hardswish | nn.Hardsigmoid | nn.GELU):
                setattr(parent, name, nn.Identity())


class Plain(nn.Sequential):
    """Convolutions and max-pooling without activations."""

    def __init__(self, classes: int) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(576, 32), nn.Linear(32, classes),
        )  # fmt: skip


class Loss(nn.Module):
    """A loss from a function."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self.function(logits, targets)


class Shuffled(ImageClassifier):
    """A classifier whose step pairs images with the labels of others."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return super().training_step((batch[0], batch[1].roll(1)), batch_idx)


class Negative(ImageClassifier):
    """A classifier that maximises its loss."""

    def training_loss(self, logits: Tensor, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        loss, shown = super().training_loss(logits, images, targets)
        return -loss, shown


class FirstImage(ImageClassifier):
    """A classifier whose loss is that of the first image of each batch."""

    def training_loss(self, logits: Tensor, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return super().training_loss(logits[:1], images[:1], targets[:1])


class Divided(ImageClassifier):
    """A classifier whose loss is divided by the number of images twice."""

    def training_loss(self, logits: Tensor, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        loss, shown = super().training_loss(logits, images, targets)
        return loss / len(images), shown


class Mixing(ImageClassifier):
    """A classifier that flips and mixes the images of a batch in its training step."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, targets = batch
        share, other = self.share_of(float(torch.rand(()))), torch.randperm(len(images))
        images = torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images, images.flip(3))
        logits = self(share[0] * images + (1 - share[0]) * images[other])
        return share[1] * self.loss(logits, targets) + (1 - share[1]) * self.loss(logits, targets[other])

    def share_of(self, share: float) -> tuple[float, float]:
        """Return the share of an image, and of its target."""
        return share, share


class MixingWrongly(Mixing):
    """The same with exchanged shares of the targets."""

    def share_of(self, share: float) -> tuple[float, float]:
        return share, 1 - share


def pixels(split: str, change: Callable[[Any, Any], None]) -> Callable[[Case], None]:
    """Return a change of the decoded images of a split; it is called with its dataset and that of training."""

    def apply(case: Case) -> None:
        setup = case.data.setup

        def changed(stage: str) -> None:
            setup(stage)
            if stage != "fit":
                return
            datasets: Any = case.data.datasets  # type: ignore[attr-defined]  # of ImageDataModule
            for each in datasets.values():
                each.pixels, each.rows, each.cache = each.pixels[each.rows].clone(), None, None
            change(datasets[split], datasets["train"])

        case.data.setup = changed  # type: ignore[method-assign]  # of one object

    return apply


def received(splits: tuple[str, ...], change: Callable[[Tensor], Tensor]) -> Callable[[Case], None]:
    """Return a change of normalised images."""

    def apply(case: Case) -> None:
        data: Any = case.data
        build = data._loader

        def changed(split: str, *args: Any, **options: Any) -> Any:
            loader = build(split, *args, **options)
            if split in splits:
                pipeline = loader.transform

                def transform(images: Tensor, targets: Tensor, draw: Any) -> tuple[Tensor, Tensor]:
                    images, targets = pipeline(images, targets, draw)
                    return change(images), targets

                loader.transform = transform
            return loader

        data._loader = changed

    return apply


def set_pixels(function: Callable[[Tensor], Tensor], share: float = 1.0) -> Callable[[Any, Any], None]:
    """Return a change of the first images of a dataset."""

    def apply(dataset: Any, train: Any) -> None:
        count = int(share * len(dataset.pixels))
        order = torch.randperm(len(dataset.pixels), generator=torch.Generator().manual_seed(1))[:count]
        dataset.pixels[order] = function(dataset.pixels[order])

    return apply


def leak(dataset: Any, train: Any) -> None:
    """Replace 40 % of val by noisy copies of training images."""
    count = 2 * len(dataset.pixels) // 5
    noise = torch.randint(-3, 4, train.pixels[:count].shape, generator=torch.Generator().manual_seed(0))
    dataset.pixels[:count] = (train.pixels[:count].int() + noise).clamp(0, 255).to(torch.uint8)
    dataset.targets[:count] = train.targets[:count]


def relabel(change: Callable[[Tensor, int], Tensor]) -> Callable[[Any, Any], None]:
    """Return a change of labels."""

    def apply(dataset: Any, train: Any) -> None:
        dataset.targets = change(dataset.targets, int(dataset.targets.max()) + 1)

    return apply


def conflict(dataset: Any, train: Any) -> None:
    """Copy 5 % of the training images onto others with other labels."""
    count = len(dataset.pixels) // 20
    dataset.pixels[:count] = dataset.pixels[-count:]
    dataset.targets[:count] = (dataset.targets[-count:] + 1) % (int(dataset.targets.max()) + 1)


def some_labels(
    share: float, new: Callable[[Tensor, int], Tensor], of: int | None = None
) -> Callable[[Any, Any], None]:
    """Return a change of a share of the labels, or of those of one class."""

    def apply(dataset: Any, train: Any) -> None:
        draw = torch.Generator().manual_seed(1)
        chosen = torch.rand(len(dataset.targets), generator=draw) < share
        chosen &= (dataset.targets == of) if of is not None else True
        dataset.targets[chosen] = new(dataset.targets, int(dataset.targets.max()) + 1)[chosen]

    return apply


def random_labels(targets: Tensor, classes: int) -> Tensor:
    """Return random labels."""
    return torch.randint(classes, targets.shape, generator=torch.Generator().manual_seed(2))


def swap(targets: Tensor, classes: int) -> Tensor:
    """Exchange the first two classes."""
    return torch.where(targets < 2, 1 - targets, targets)


def keep(chosen: Callable[[Tensor], Tensor]) -> Callable[[Any, Any], None]:
    """Return a change that keeps the images that a function of their classes chooses."""

    def apply(dataset: Any, train: Any) -> None:
        rows = chosen(dataset.targets).nonzero()[:, 0]
        dataset.pixels, dataset.targets = dataset.pixels[rows], dataset.targets[rows]
        dataset.files = [dataset.files[row] for row in rows.tolist()]

    return apply


def few(count: int) -> Callable[[Any, Any], None]:
    """Return a change that keeps some images of each class."""
    return keep(lambda t: sum(((t == each) & ((t == each).cumsum(0) <= count) for each in t.unique()), t < 0))


def mark(dataset: Any, train: Any) -> None:
    """Draw a square whose place depends on the class."""
    for row, label in enumerate(dataset.targets.tolist()):
        top, left = 8 * (label // 4) + 1, 8 * (label % 4) + 1
        dataset.pixels[row, :, top : top + 6, left : left + 6] = 255


class Noise:
    """A transform of batches that replaces pixels by noise."""

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, images: Tensor, targets: Tensor, draw: Any) -> tuple[Tensor, Tensor]:
        noise = torch.randint(0, 256, images.shape, generator=draw.generator).to(images.dtype)
        masks = torch.rand((len(images), 1, *images.shape[2:]), generator=draw.generator) < self.share
        return torch.where(masks, noise, images), targets


def inner(change: Callable[[Any], Any]) -> Callable[[Case], None]:
    """Return a change of all weight layers but the last."""

    def apply(network: nn.Module) -> None:
        for layer in [each for each in network.modules() if isinstance(each, nn.Conv2d | nn.Linear)][:-1]:
            with torch.no_grad():
                change(layer)

    return around(apply)


def kill(layer: Any) -> None:
    """Give nine tenths of the units a bias that no image overcomes."""
    if layer.bias is not None:
        layer.bias[: 9 * len(layer.bias) // 10] = -100


def drop(p: float) -> Callable[[Case], None]:
    """Return a change that puts dropout before the last layer."""

    def apply(network: nn.Module) -> None:
        name, last = [each for each in network.named_modules() if isinstance(each[1], nn.Linear)][-1]
        network.set_submodule(name, nn.Sequential(nn.Dropout(p), last))

    return around(apply)


def norms(**changes: Any) -> Callable[[Case], None]:
    """Return a change of attributes of batch norms."""

    def apply(network: nn.Module) -> None:
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.__dict__.update(changes)

    return around(apply)


def deep(activation: type[nn.Module], scale: float, depth: int) -> Callable[[Case], None]:
    """Return a change to a deep network of linear layers."""

    def build(classes: int) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten(), nn.Linear(3072, 64), activation()]
        for _ in range(depth):
            layers += [nn.Linear(64, 64), activation()]
        for layer in layers[1::2]:
            layer.weight.data.mul_(scale)  # type: ignore[union-attr,operator]  # of nn.Linear
        return nn.Sequential(*layers, nn.Linear(64, classes))

    return lambda case: setattr(case, "network", build)


def both(*changes: Callable[[Case], Any]) -> Callable[[Case], None]:
    """Return several changes as one."""
    return lambda case: [change(case) for change in changes] and None


def two_units(classes: int) -> nn.Module:
    """Return a network that is too small."""
    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 2), nn.Tanh(), nn.Linear(2, classes))


def batch_size(count: int) -> Callable[[Case], None]:
    """Return a change of the batch size."""
    return lambda case: setattr(case.data, "batch_size", count)


def mixing(transform: Any) -> Callable[[Case], None]:
    """Return a change that adds a transform of batches."""
    return lambda case: case.data.batch_transforms.append(transform)  # type: ignore[attr-defined]  # of ImageDataModule


def network(factory: Callable[[int], nn.Module]) -> Callable[[Case], None]:
    """Return a change of the network."""
    return lambda case: setattr(case, "network", factory)


def module(kind: type[ImageClassifier]) -> Callable[[Case], None]:
    """Return a change of the module's class."""
    return lambda case: setattr(case, "module", kind)


def sgd(**changes: Any) -> Callable[[Case], None]:
    """Return a change of SGD's options."""
    return settings(optimizer=partial(SGD, **({"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4} | changes)))


def adam(lr: float) -> Callable[[Case], None]:
    """Return a change to Adam with a constant learning rate."""
    return settings(optimizer=partial(Adam, lr=lr), lr_scheduler=None)


def track_no_statistics(network: nn.Module) -> None:
    """Remove the running statistics of batch norm."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.track_running_stats, layer.running_mean, layer.running_var = False, None, None


COLOR, NORM, FUNCTIONAL = "shapes", ("resnet20", "wide_resnet", "mobilenet"), ("mlp", "mobilenet")
Change = Callable[[Case], None]
# name: (cause, change); a tuple of causes if they have the same remedy
FAULTS: dict[str, tuple[str | tuple[str, ...], Change]] = {
    "constant_images": ("constant_images", pixels("train", set_pixels(torch.zeros_like, 0.2))),
    "nan_images": ("nan_images", received(("train",), lambda x: torch.where(x > 1.5, torch.nan, x))),
    "conflicting_labels": ("conflicting_labels", pixels("train", conflict)),
    "leak": ("leak", pixels("val", leak)),
    "val_inverted": (
        ("shifted_split", "val_normalization"), pixels("val", set_pixels(torch.bitwise_not))
    ),
    "val_bgr": ("val_normalization", lambda case: case.data.eval_transforms.append(partial(torch.flip, dims=(0,)))),
    "val_bgr_files": ("val_normalization", pixels("val", set_pixels(lambda x: x.flip(1)))),
    "val_not_normalized": ("val_normalization", received(("val",), lambda x: x * 0.25 + 0.5)),
    "val_normalized_twice": ("val_normalization", received(("val",), lambda x: (x - 0.5) / 0.25)),
    "normalized_twice": ("wrong_scale", received(("train", "val"), lambda x: (x - 0.5) / 0.25)),
    "not_scaled": ("wrong_scale", received(("train", "val"), lambda x: (x + 2) * 64)),
    "scaled_twice": ("wrong_scale", received(("train", "val"), lambda x: x / 255)),
    "detached": ("detached_layers", around(hooked(lambda x: x[len(x) // 2], lambda m, i, o: o.detach()))),
    "multiplied_by_zero": (
        ("detached_layers", "ignores_input"), around(hooked(lambda x: x[len(x) // 2], lambda m, i, o: o * 0))
    ),
    "in_a_list": ("unregistered_layers", around(InList)),
    "frozen": ("frozen_by_accident", around(freeze)),
    "mixes_by_reshape": ("mixes_images", before(lambda x: x.permute(1, 0, 2, 3).reshape(x.shape))),
    "mixes_by_mean": ("mixes_images", after(lambda y: y - y.mean(0))),
    "other_places": ("mixes_images", after(lambda y: torch.cat([y[::2], y[1::2]]))),
    "reshaped": ("scrambled_pixels", before(lambda x: x.flatten(1).reshape(len(x), 32, 32, -1).permute(0, 3, 1, 2))),
    "ignores_input": ("ignores_input", before(torch.zeros_like)),
    "ignores_half": ("ignores_pixels", before(lambda x: torch.cat([x[:, :, :14], 0 * x[:, :, 14:]], 2))),
    "no_activation": ("no_activation", around(without_activations)),
    "only_max_pooling": ("no_activation", network(Plain)),
    "zero_init": ("symmetric_init", initialized(torch.Tensor.zero_)),
    "constant_init": ("symmetric_init", initialized(lambda w: w.fill_(0.02))),
    "large_init": ("init_too_large", initialized(lambda w: w.normal_(0, 0.5))),
    "small_init": (("init_too_small",), initialized(lambda w: w.normal_(0, 1e-4))),
    "softmax_twice": ("bounded_outputs", after(lambda y: y.softmax(1))),
    "sigmoid": ("bounded_outputs", after(torch.sigmoid)),
    "negative_loss": ("wrong_objective", settings(loss=Loss(lambda y, t: -F.cross_entropy(y, t)))),
    "negative_step": ("wrong_objective", module(Negative)),
    "wrong_targets": (
        "wrong_objective",
        settings(loss=Loss(lambda y, t: F.cross_entropy(y, (t + 1) % y.shape[1]))),
    ),
    "shuffled_targets": (("wrong_targets", "wrong_objective"), module(Shuffled)),
    "first_image": ("wrong_targets", module(FirstImage)),
    "mixes_wrongly": ("wrong_targets", module(MixingWrongly)),
    "divided_twice": ("loss_divided_twice", module(Divided)),
    "own_predictions": (
        "wrong_objective", settings(loss=Loss(lambda y, t: F.cross_entropy(y, y.argmax(1))))
    ),
    "detached_loss": ("loss_detached", settings(loss=Loss(lambda y, t: F.cross_entropy(y.detach(), t)))),
    "nan_loss": ("loss_not_finite", settings(loss=Loss(lambda y, t: -(y - y).log().mean()))),
    "sum": (("loss_is_sum", "lr_too_high"), settings(loss=nn.CrossEntropyLoss(reduction="sum"))),
    "smoothed_away": ("smoothing_too_high", settings(loss=nn.CrossEntropyLoss(label_smoothing=0.9))),
    "lr_too_high": ("lr_too_high", sgd(lr=10.0)),
    "adam_lr_too_high": ("lr_too_high", settings(optimizer=partial(Adam, lr=1.0))),
    "lr_too_low": ("lr_too_low", sgd(lr=1e-6)),
    "adam_lr_too_low": ("lr_too_low", settings(optimizer=partial(Adam, lr=1e-8))),
    "momentum": ("momentum_too_high", settings(optimizer=partial(SGD, lr=0.05, momentum=0.999), lr_scheduler=None)),
    "eps": (("eps_too_large", "lr_too_low"), settings(optimizer=partial(Adam, lr=1e-3, eps=100.0))),
    "weight_decay": ("weight_decay_too_strong", sgd(weight_decay=1.0)),
    "clip": (("clip_too_tight", "lr_too_low"), trainer(gradient_clip_val=1e-6)),
    "schedule_by_step": (
        "lr_zero_early", settings(lr_scheduler=partial(StepLR, step_size=2, gamma=0.1), lr_interval="step")
    ),
    "long_warmup": (
        "peak_too_late", settings(lr_scheduler=partial(ProgressLR, shape=WarmupCosine(warmup=0.9)))
    ),
    "tiny_batch": ("batch_too_small", batch_size(2)),
    "ignores_eval": ("eval_without_effect", around(AlwaysTraining)),
    "dropout_in_eval": ("noisy_evaluation", after(lambda y: F.dropout(y, 0.5, training=True))),
    "normalizes_in_eval": ("other_forward_in_eval", around(NormalizesInEval)),
    "no_statistics": ("mixes_images", around(track_no_statistics)),
}  # fmt: skip
WEAK_STEPS = ("lr_too_low", "clip_too_tight")
LABELS = ("noisy_labels", "random_labels")
TRAINING: dict[str, tuple[str | tuple[str, ...], Change]] = {  # faults that training shows
    "few_images": ("overfitting", both(pixels("train", few(6)), settings(lr_scheduler=None), trainer(max_epochs=60))),
    "noise_40": ("noisy_labels", both(pixels("train", some_labels(0.4, random_labels)), trainer(max_epochs=20))),
    "noise_70": (LABELS, both(pixels("train", some_labels(0.7, random_labels)), trainer(max_epochs=20))),
    "random": (LABELS, both(pixels("train", some_labels(1, random_labels)), trainer(max_epochs=30))),
    "swapped_val": ("permuted_labels", pixels("val", relabel(swap))),
    "swapped_train": ("permuted_labels", pixels("train", relabel(swap))),
    "polluted": (("class_polluted", "noisy_labels"), pixels("train", some_labels(0.6, lambda t, n: t * 0 + 1, of=0))),
    "imbalance": ("imbalance", pixels("train", keep(lambda t: (t < 2) | ((t >= 2) & (t.cumsum(0) % 29 == 0))))),
    "mark": ("shortcut", pixels("train", mark)),
    "noise_in_pixels": ("augmentation_too_strong", mixing(Noise(0.97))),
    "cutout": ("augmentation_too_strong", mixing(Cutout(32))),
    "negative_bias": (("dead_units", "init_too_large"), inner(kill)),
    "dead_by_lr": (("lr_too_high", "dead_units", "exploding_gradients"), sgd(lr=1.0)),
    "sigmoid_10": ("vanishing_gradients", deep(nn.Sigmoid, 1, 10)),
    "tanh_30": (("saturation", "init_too_large"), deep(nn.Tanh, 30, 4)),
    "momentum_of_norms": ("stale_batch_norm", norms(momentum=1e-4)),
    "dropout_95": ("dropout_too_high", drop(0.95)),
    "clip_1e-3": (WEAK_STEPS, trainer(gradient_clip_val=1e-3)),
    "decay_.2": ("weight_decay_too_strong", sgd(weight_decay=0.2)),
    "lr_5": (("lr_too_high", "exploding_gradients"), sgd(lr=5.0)),
    "adam_lr_.3": (("lr_too_high", "dead_units"), settings(optimizer=partial(Adam, lr=0.3))),
    "lr_1e-4": ("lr_too_low", sgd(lr=1e-4)),
    "bf16_weights": ("updates_rounded_away", both(trainer(precision="bf16-true"), adam(1e-4))),
    "two_units": ("network_too_small", network(two_units)),
}  # fmt: skip
ONLY = {  # networks or data that a fault needs
    **dict.fromkeys(("val_bgr", "val_bgr_files", "reshaped"), COLOR),
    **dict.fromkeys(("tiny_batch", "no_statistics", "momentum_of_norms"), NORM),
    **dict.fromkeys(("sigmoid_10", "tanh_30", "two_units"), ("mlp", "resnet20")),  # they replace the network
    "negative_bias": ("lenet", "mlp"),
    "no_activation": FUNCTIONAL,
    **dict.fromkeys(("large_init", "small_init"), ("lenet", "mlp")),  # batch norm removes the scale
    "only_max_pooling": ("lenet",),
}
CYCLE = {"base_lr": 1e-3, "max_lr": 0.1, "step_size_up": 20}
HEALTHY: dict[str, Change] = {
    "plain": settings(),
    "constant_lr": settings(lr_scheduler=None),
    "adam": settings(optimizer=partial(Adam, lr=1e-3)),
    "cosine_adamw": settings(
        optimizer=partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.05),
        lr_scheduler=partial(CosineAnnealingLR, T_max=6),
    ),
    "warmup": settings(lr_scheduler=partial(ProgressLR, shape=WarmupCosine(warmup=0.2))),
    "mixup": mixing(MixUp()),
    "cutmix": mixing(CutMix()),
    "smoothing": settings(loss=nn.CrossEntropyLoss(label_smoothing=0.2)),
    "log_softmax": after(lambda y: y.log_softmax(1)),
    "relu": after(torch.relu),  # as SqueezeNet
    "log_softmax_nll": lambda case: [
        change(case) for change in (after(lambda y: y.log_softmax(1)), settings(loss=nn.NLLLoss()))
    ],
    "bce": settings(loss=nn.BCEWithLogitsLoss()),
    "mse": settings(loss=nn.MSELoss(), optimizer=partial(Adam, lr=1e-3)),
    "softmax_regression": network(partial(SoftmaxRegression, image_size=32)),
    "dropout": network(partial(MLP, hidden=(128, 64), dropout=0.5, image_size=32)),
    "zero_head": around(zero_head),
    "sum_with_its_lr": lambda case: [
        change(case) for change in (settings(loss=nn.CrossEntropyLoss(reduction="sum")), sgd(lr=0.002))
    ],
    "very_short": trainer(max_epochs=1),
    "clipped": trainer(gradient_clip_val=1.0),
    "balanced": lambda case: setattr(case.data, "sampler", "balanced"),
    "class_weights": settings(class_weights="balanced"),
    "layer_rates": settings(layer_decay=0.8, no_decay=True),
    "dropout_.3": drop(0.3),
    "mixes_in_its_step": module(Mixing),
    "ema": lambda case: case.callbacks.append(EMA(0.9)),
    "cyclic": settings(lr_scheduler=partial(CyclicLR, mode="triangular2", **CYCLE), lr_interval="step"),
    "plateau_first": both(sgd(lr=0.02), initialized(lambda w: w.mul_(0.5)), trainer(max_epochs=30)),
    "long": trainer(max_epochs=30),
    "unfreezes": lambda case: case.settings.update(param_groups=[ParamGroup("[!f]*.weight", unfreeze_epoch=2)]),
}


def applies(fault: str, network: str, data: str) -> bool:
    """Return whether a fault can be planted into a network and data."""
    needed = ONLY.get(fault, network)
    return bool({network, data} & ({needed} if isinstance(needed, str) else {*needed}))


def folder() -> Path:
    """Return a new folder for data."""
    return Path(tempfile.mkdtemp(prefix="doctor_"))
