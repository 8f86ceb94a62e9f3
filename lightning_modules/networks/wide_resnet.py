"""Wide residual networks for 32x32 images (Zagoruyko and Komodakis, 2016, "Wide residual networks")."""

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lightning_modules.networks.resnet import conv


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm and ReLU before each, dropout between them, and a shortcut."""

    def __init__(self, in_channels: int, width: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv(in_channels, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv(width, width, 3)
        self.shortcut = conv(in_channels, width, 1, stride) if in_channels != width else None

    def forward(self, x: Tensor) -> Tensor:
        activated = self.bn1(x).relu()
        out = self.bn2(self.conv1(activated)).relu()
        out = self.conv2(self.dropout(out))
        return out + (x if self.shortcut is None else self.shortcut(activated))


class WideResNet(nn.Module):
    """Pre-activation residual network of three stages with 16, 32 and 64 channels times a factor.

    Input: float ``(N, C, H, W)``. Output: logits ``(N, num_classes)``.

    Args:
        depth: Number of layers with weights, 6n + 4, as the paper counts them.
        widen_factor: Factor on the number of channels.
        dropout: Probability that an element is dropped between the convolutions of a block in training.
        in_channels: Number of channels C, set by the module that builds the network; 3 by default.

    Raises:
        MisconfigurationException: The depth is not 6n + 4.
    """

    def __init__(
        self,
        num_classes: int,
        depth: int = 28,
        widen_factor: int = 10,
        dropout: float = 0.0,
        in_channels: int | None = None,
    ) -> None:
        super().__init__()
        if depth < 10 or depth % 6 != 4:
            raise MisconfigurationException(
                f"Expected a depth of 6n + 4 for WideResNet (10, 16, 22, 28, 40, ...), but got {depth}."
            )
        blocks = []
        previous = 16
        for width, first_stride in ((16 * widen_factor, 1), (32 * widen_factor, 2), (64 * widen_factor, 2)):
            for i in range((depth - 4) // 6):
                blocks.append(Block(previous, width, first_stride if i == 0 else 1, dropout))
                previous = width
        self.stem = conv(in_channels or 3, 16, 3)
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(previous)
        self.fc = nn.Linear(previous, num_classes)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        x = self.blocks(self.stem(images))
        return self.fc(self.bn(x).relu().mean(dim=(2, 3)))
