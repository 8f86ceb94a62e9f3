"""The base class of all modules: a network for images, with the properties of its data."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from rich import print as rich_print
from torch import Tensor, nn

from lightning_modules.epoch_means import EpochMeans
from lightning_modules.networks.build import build_network, library_function, output_shape
from lightning_modules.optim.module import TrainableModule
from lightning_modules.sharding import shard
from lightning_modules.weights.initializers import Initializer, initialize, initializer_table
from lightning_modules.weights.pretrained import LoadPretrained, read_state_dict
from lightning_modules.weights.published import published_weights
from lightning_modules.whitening import Whitening


class ImageModule(TrainableModule):
    """A network for images; subclasses define the training objective.

    ``class_names``, ``mean``, ``std``, ``image_size`` and ``class_counts`` come from the data, never from a config.
    They are saved in the checkpoint, which is self-contained: ``load_from_checkpoint(file)``.

    Args:
        network: Class of the network; it is called with the width of its output, with ``in_channels``, the number of
            channels of the images, if it has an argument of that name, and with ``image_size`` if it has an argument of
            that name without a value.
        class_names: Name of each class.
        mean: Mean of each channel with which the data was normalised, on the scale of 0 to 1.
        std: Standard deviation of each channel with which the data was normalised, on the scale of 0 to 1.
        image_size: Side of the images in pixels.
        width: First argument of the network: the size of its output, such as the number of classes.
        class_counts: Number of training images of each class.
        initializers: Ordered rules for initialising parameters by layer and name; others keep the network's own values.
        pretrained: Weights to start from: a file, see ``read_state_dict``; or the name of published weights of a
            network of torchvision or timm, such as "DEFAULT", see ``published_weights``.
        channels_last: Use the NHWC memory format: faster convolutions on most hardware.
        compile: Train with torch.compile: faster steps after the first, which may take a minute.
        **kwargs: See ``TrainableModule``.

    Raises:
        MisconfigurationException: The network does not accept images of this size or number of channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: Callable[[int], nn.Module],
        class_names: list[str],
        mean: list[float],
        std: list[float],
        image_size: int,
        width: int,
        class_counts: list[int] | None = None,
        initializers: list[Initializer] | None = None,
        pretrained: str | None = None,
        channels_last: bool = False,
        compile: bool = False,  # noqa: A002  # the name of torch's function
        **kwargs: Any,
    ) -> None:
        super().__init__(build_network(network, width, image_size, len(mean), pretrained is not None), **kwargs)
        self.save_hyperparameters(ignore=["width"], logger=False)
        self.library_function = library_function(network)
        self.class_names = class_names
        self.initializers = initializers or []
        self.pretrained = pretrained
        self.channels_last = channels_last
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        self.example_input_array = torch.zeros(1, len(mean), image_size, image_size)  # for the model summary
        self.output_shape = output_shape(self.network, self.example_input_array)
        initialize(self.network, self.initializers)
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
        self.epoch_means = EpochMeans()
        self.own_callbacks: list[Callback] = [self.epoch_means, *([LoadPretrained()] if pretrained else [])]
        if callable(getattr(self.network, "whiten", None)):
            self.own_callbacks.append(Whitening())
        self.use_compile = compile  # nn.Module has a method compile
        self._compiled_network: Callable[[Tensor], Tensor] | None = None

    def configure_callbacks(self) -> list[Callback]:
        """Return the callbacks that this module needs in any Trainer, except those that it has from an earlier fit."""
        return [each for each in self.own_callbacks if each not in self.trainer.callbacks]  # type: ignore[attr-defined]  # set elsewhere

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.initializers:
            self._initial_weights = initializer_table(self.network, self.initializers)  # before they are sharded
        if stage == "fit" and self.use_compile:
            self._compiled_network = torch.compile(self.network.forward)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.initializers and self.trainer.ckpt_path is None:  # otherwise a checkpoint has replaced them
            rank_zero_only(rich_print)(self._initial_weights)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.pretrained is not None and self._trainer is not None:
            rank_zero_info(f"{self.pretrained} is not loaded, because the weights of the checkpoint replace it.")
        self.pretrained = None

    def configure_model(self) -> None:
        """Shard the network if the strategy is ``ModelParallelStrategy``."""
        if self.device_mesh is not None:
            shard(self.network, self.device_mesh, compiled=self.use_compile)

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's output for normalised images, float ``(N, C, H, W)``.

        Raises:
            ValueError: The images have an integer dtype, so they are not normalised.
        """
        if not images.is_floating_point():
            raise ValueError(f"Expected normalised float images, but got {images.dtype}. Call normalize first.")
        images = images.to(self.dtype)  # for precisions such as bf16-true
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        if self.training and self._compiled_network is not None:  # validation and callbacks use the uncompiled network
            return self._compiled_network(images)
        return self.network(images)

    # Beyond Lightning's hooks

    def pretrained_weights(self) -> tuple[dict[str, Any], str]:
        """Return the pretrained weights, by name of their tensors, and their file or name."""
        name = str(self.pretrained)
        if self.library_function is None or Path(name).is_file():
            return read_state_dict(name), name
        published = published_weights(self.library_function, name)
        weights, channels = published.load(self.hparams["image_size"]), len(self.mean)
        for tensor, own in self.network.state_dict().items():
            if own.ndim == 4 and own.shape[1] == channels != 3 and tensor in weights and weights[tensor].shape[1] == 3:
                from timm.models import adapt_input_conv  # it takes a second

                weights[tensor] = adapt_input_conv(channels, weights[tensor])
        return weights, published.name

    def log_training(self, count: int | Tensor, **means: Tensor) -> None:
        """Log ``train/loss_step`` every ``log_every_n_steps``, and average values for ``train/<name>`` of the epoch.

        ``means`` over ``count`` images, or other items, are scalars without gradient, including ``loss``. Calling
        ``self.log`` in every step would take longer than a small network's backward pass.
        """
        self.epoch_means.update(count, means)
        every = 0 if self._trainer is None else self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set elsewhere
        if every and (self.global_step + 1) % every == 0:
            self.log("train/loss_step", means["loss"], on_step=True, on_epoch=False)
            self.epoch_means.add_up()

    def log_mean(self, name: str, mean: Tensor | float, count: int, prog_bar: bool = False) -> None:
        """Log a mean over ``count`` images, weighted by ``count`` in the mean over all steps and devices."""
        # Lightning divides the sum of counts by the number of devices, and truncates it to an integer
        devices = 1 if self._trainer is None else self.trainer.world_size  # a step may be called without a trainer
        self.log(name, mean, batch_size=count * devices, sync_dist=True, prog_bar=prog_bar)

    def normalize(self, images: Tensor) -> Tensor:
        """Normalise uint8 images ``(N, C, H, W)`` for the network."""
        return (images.to(self.mean.device) / 255 - self.mean) / self.std

    def denormalize(self, images: Tensor) -> Tensor:
        """Convert normalised images ``(N, C, H, W)`` to float from 0 to 1."""
        return (images * self.std + self.mean).clamp(0, 1)
