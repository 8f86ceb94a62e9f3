"""A small convolutional autoencoder."""

from jsonargparse.typing import PositiveInt
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lightning_modules.networks.image_size import require_image_size


class ConvAutoencoder(nn.Module):
    """Encode an image to a code with three strided convolutions, and decode it with three transposed ones.

    Input: float ``(N, 3, H, W)`` of one size. Output: the reconstructed image, from 0 to 1, of the same shape.

    Args:
        code_size: Size of the code of an image.
        width: Channels of the outermost convolutions; each further inward has twice as many.
        image_size: H and W in pixels, a multiple of 8; by default the data's, set by the module that builds the
            network.

    Raises:
        MisconfigurationException: The image size is missing, or is not a multiple of 8.
    """

    def __init__(self, code_size: int, width: PositiveInt = 32, image_size: int | None = None) -> None:
        super().__init__()
        size = require_image_size(image_size, type(self).__name__)
        if size % 8:
            raise MisconfigurationException(
                f"Expected images with a side that is a multiple of 8 for ConvAutoencoder, but got {size}. Set "
                "--data.image_size."
            )
        innermost = (4 * width, size // 8, size // 8)
        features = 4 * width * (size // 8) ** 2
        self.encoder = nn.Sequential(
            *(nn.Conv2d(3, width, 4, 2, 1), nn.ReLU()),
            *(nn.Conv2d(width, 2 * width, 4, 2, 1), nn.ReLU()),
            *(nn.Conv2d(2 * width, 4 * width, 4, 2, 1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(features, code_size)),
        )
        # a kernel size that is a multiple of the stride covers each pixel equally often: no checkerboard artefacts
        self.decoder = nn.Sequential(
            *(nn.Linear(code_size, features), nn.ReLU(), nn.Unflatten(1, innermost)),
            *(nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1), nn.ReLU()),
            *(nn.ConvTranspose2d(2 * width, width, 4, 2, 1), nn.ReLU()),
            *(nn.ConvTranspose2d(width, 3, 4, 2, 1), nn.Sigmoid()),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.decoder(self.encoder(images))
