"""Residual networks for 32x32 images, after He et al., 2015, "Deep residual learning for image recognition"."""

from collections.abc import Callable
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn


def conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    """Return a "same" convolution without bias, because the following batch norm has one."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)


class PadShortcut(nn.Module):
    """Shortcut without parameters: every ``stride``-th pixel, new channels filled with zeros (the paper's option A)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels = out_channels - in_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


class ProjectionShortcut(nn.Sequential):
    """Shortcut with a strided 1x1 convolution and batch norm (the paper's option B)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(conv(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x)).relu()
        out = self.bn2(self.conv2(out))
        return (out + self.shortcut(x)).relu()


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a shortcut; the output has four times the channels of the 3x3 convolution."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, width * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x)).relu()
        out = self.bn2(self.conv2(out)).relu()
        out = self.bn3(self.conv3(out))
        return (out + self.shortcut(x)).relu()


def stage(
    block: Any, shortcut: Callable[..., nn.Module], in_channels: int, width: int, stride: int, blocks: int
) -> nn.Sequential:
    """Return ``blocks`` blocks of one width; the first changes the resolution and the number of channels."""
    out_channels = width * block.expansion
    changes = stride != 1 or in_channels != out_channels
    first = block(in_channels, width, stride, shortcut(in_channels, out_channels, stride) if changes else nn.Identity())
    return nn.Sequential(first, *(block(out_channels, width, 1, nn.Identity()) for _ in range(blocks - 1)))


class ResNet(nn.Module):
    """Residual network with a 3x3 stem and no max-pool, so that 32x32 images keep their size before the first block.

    Depths 20, 32, 44, 56 and 110 are the CIFAR-10 networks of the paper's section 4.2 (three stages of 16, 32 and 64
    channels, shortcuts without parameters); 18, 34 and 50 are its ImageNet networks (four stages of 64 to 512 channels,
    projection shortcuts) with the 3x3 stem.

    Input: float ``(N, C, H, W)``. Output: logits ``(N, num_classes)``.

    Args:
        depth: Number of layers with weights, as the paper counts them.
        in_channels: Number of channels C, set by the module that builds the network; 3 by default.
    """

    def __init__(
        self,
        num_classes: int,
        depth: Literal[18, 20, 32, 34, 44, 50, 56, 110] = 18,
        in_channels: int | None = None,
    ) -> None:
        super().__init__()
        block = Bottleneck if depth == 50 else BasicBlock
        for_imagenet = depth in (18, 34, 50)
        shortcut = ProjectionShortcut if for_imagenet else PadShortcut
        widths = (64, 128, 256, 512) if for_imagenet else (16, 32, 64)
        blocks = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3]}.get(depth, [(depth - 2) // 6] * 3)
        self.stem = nn.Sequential(conv(in_channels or 3, widths[0], 3), nn.BatchNorm2d(widths[0]), nn.ReLU())
        stages = []
        previous = widths[0]
        for i, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            stages.append(stage(block, shortcut, previous, width, 1 if i == 0 else 2, count))
            previous = width * block.expansion
        self.stages = nn.Sequential(*stages)
        self.fc = nn.Linear(previous, num_classes)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        x = self.stages(self.stem(images))
        return self.fc(x.mean(dim=(2, 3)))
