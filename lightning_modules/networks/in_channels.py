"""Change the number of channels that a library's network for RGB images takes."""

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn


def for_channels(weight: Tensor, channels: int) -> Tensor:
    """Return the weights of a convolution of RGB images, ``(K, 3, H, W)``, for other images, like timm's ``in_chans``.

    Those for one channel are the sum of those for red, green and blue, so that a grey image gives the same output as
    its RGB version; those for more channels repeat them on the same scale.
    """
    if channels == 1:
        return weight.sum(1, keepdim=True)
    return weight.repeat(1, -(-channels // 3), 1, 1)[:, :channels] * (3 / channels)


def set_in_channels(network: nn.Module, channels: int) -> nn.Module:
    """Adapt the first convolution of a network to images of some channels, and return the network."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.in_channels == 3:
            layer.weight = nn.Parameter(for_channels(layer.weight.detach(), channels))
            layer.in_channels = channels
            return network
    raise MisconfigurationException(
        f"Expected a network that begins with a convolution of 3 channels, which can be adapted to {channels}, but "
        f"{type(network).__name__} has none. Use another network, or --data.channels 3."
    )
