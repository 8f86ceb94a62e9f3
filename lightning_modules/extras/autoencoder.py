"""Train an autoencoder, which reconstructs images from a short code."""

from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lightning_modules.base import ImageModule
from lightning_modules.losses import per_image


class Autoencoder(ImageModule):
    """A network that reconstructs images through a code; the loss compares images from 0 to 1, before normalisation.

    Batches are ``images``, float32 ``(N, C, H, W)``, normalised, and targets, which are ignored; in validation and test
    also ``(N, V, C, H, W)``, where each view counts as an image. Logs ``train/loss``, ``val/loss``, ``test/loss``
    (means over an epoch and all devices) and ``train/loss_step``. Without accuracy, set ``--checkpoint.monitor``.

    Args:
        code_size: First argument of the network, whose output is an image.
        loss: ``MSELoss`` (the default), ``L1Loss``, ``SmoothL1Loss``, ``HuberLoss``, ``BCELoss`` or another loss of
            the reconstructed and the true images, both float32 ``(N, C, H, W)``.
        **kwargs: See ``ImageModule``.

    Raises:
        MisconfigurationException: The network's output does not have the shape of its input.
    """

    def __init__(self, code_size: PositiveInt = 128, loss: nn.Module | None = None, **kwargs: Any) -> None:
        super().__init__(width=code_size, **kwargs)
        self.loss = loss or nn.MSELoss()
        shape = (1, len(self.mean), self.hparams["image_size"], self.hparams["image_size"])
        if self.output_shape != shape:
            raise MisconfigurationException(
                f"Expected a network that reconstructs an image {shape}, but {type(self.network).__name__} returns "
                f"{self.output_shape}. Use ConvAutoencoder, with a multiple of 8 for --data.image_size."
            )

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss, mean = self._compare(batch[0])
        self.log_training(len(batch[0]), loss=mean)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log_mean("val/loss", self._compare(batch[0])[1], len(batch[0]), prog_bar=True)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log_mean("test/loss", self._compare(batch[0])[1], len(batch[0]))

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the reconstructed images of a batch, from 0 to 1."""
        return self(batch[0].flatten(0, -4))

    def _compare(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss for the backward pass, and its mean over images for logging."""
        images = images.flatten(0, -4)
        reconstructed = self(images).float()
        with torch.autocast(reconstructed.device.type, enabled=False):  # BCELoss does not support it on a GPU
            loss = self.loss(reconstructed, self.denormalize(images).float())
        return loss, per_image(self.loss, loss.detach(), len(images))


class ConvAutoencoder(nn.Module):
    """Encode an image to a code with three strided convolutions, and decode it with three transposed ones.

    Input: float ``(N, C, H, W)`` of one size. Output: the reconstructed image, from 0 to 1, of the same shape.

    Args:
        code_size: Size of the code of an image.
        width: Channels of the outermost convolutions; each further inward has twice as many.
        image_size: H and W in pixels, a multiple of 8, set by the module that builds the network; 32 by default.
        in_channels: Number of channels C, set by the module that builds the network; 3 by default.
    """

    def __init__(
        self,
        code_size: int,
        width: PositiveInt = 32,
        image_size: int | None = None,
        in_channels: int | None = None,
    ) -> None:
        super().__init__()
        size, channels = image_size or 32, in_channels or 3
        innermost = (4 * width, size // 8, size // 8)
        features = 4 * width * (size // 8) ** 2
        self.encoder = nn.Sequential(
            *(nn.Conv2d(channels, width, 4, 2, 1), nn.ReLU()),
            *(nn.Conv2d(width, 2 * width, 4, 2, 1), nn.ReLU()),
            *(nn.Conv2d(2 * width, 4 * width, 4, 2, 1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(features, code_size)),
        )
        self.decoder = nn.Sequential(  # a kernel of twice the stride covers all pixels equally: no checkerboard pattern
            *(nn.Linear(code_size, features), nn.ReLU(), nn.Unflatten(1, innermost)),
            *(nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1), nn.ReLU()),
            *(nn.ConvTranspose2d(2 * width, width, 4, 2, 1), nn.ReLU()),
            *(nn.ConvTranspose2d(width, channels, 4, 2, 1), nn.Sigmoid()),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.decoder(self.encoder(images))
