"""Change the number of channels that a library's network for RGB images takes."""

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn


def set_in_channels(network: nn.Module, channels: int) -> nn.Module:
    """Adapt the first convolution of a network to images of some channels, as timm does, and return the network."""
    from timm.models import adapt_input_conv  # it takes a second

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.in_channels == 3:
            layer.weight = nn.Parameter(adapt_input_conv(channels, layer.weight.detach()))
            layer.in_channels = channels
            return network
    raise MisconfigurationException(
        f"Expected a network that begins with a convolution of 3 channels, which can be adapted to {channels}, but "
        f"{type(network).__name__} has none. Use another network, or --data.channels 3."
    )
