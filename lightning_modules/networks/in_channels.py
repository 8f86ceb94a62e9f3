"""Change the number of channels that a library's network for RGB images takes."""

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn


def set_in_channels(network: nn.Module, channels: int) -> nn.Module:
    """Adapt the first convolution of a network to images of some channels, and return the network.

    Its weights for one channel are the sum of those for red, green and blue, so that a grey image gives the same output
    as its RGB version; those for more channels repeat them on the same scale. Like timm's ``in_chans``.

    Raises:
        MisconfigurationException: The network has no convolution of three channels.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.in_channels == 3:
            weight = layer.weight.detach()
            repeated = weight.repeat(1, -(-channels // 3), 1, 1)[:, :channels] * (3 / channels)
            layer.weight = nn.Parameter(weight.sum(1, keepdim=True) if channels == 1 else repeated)
            layer.in_channels = channels
            return network
    raise MisconfigurationException(
        f"Expected a network that begins with a convolution of 3 channels, which can be adapted to {channels}, but "
        f"{type(network).__name__} has none. Use another network, or --data.channels 3."
    )
