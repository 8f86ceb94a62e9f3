"""The network of Jordan, 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU", for training in few epochs."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS_OF_WHITENING = 5e-4  # added to the variances, which are about 1e-4 to 10, so that noise is not amplified
EMPTY = 1e-6  # fraction of the largest variance below which a variance is rounding error; the least of CIFAR-10 is 1e-5


class BatchNorm(nn.BatchNorm2d):
    """Batch norm without a scale, whose statistics follow the last few batches because training is short."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=0.4)
        self.weight.requires_grad_(False)


class Block(nn.Sequential):
    """Two 3x3 convolutions with batch norm and GELU; max-pooling after the first halves the resolution."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.pool = nn.MaxPool2d(2)
        self.norm1 = BatchNorm(width)
        self.gelu1 = nn.GELU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = BatchNorm(width)
        self.gelu2 = nn.GELU()


class Airbench(nn.Module):
    """Frozen 2x2 whitening convolution, three blocks of two convolutions, global max-pool and a linear head.

    Convolutions are initialised as the identity of their first input channels (Dirac). Call ``whiten`` before training.

    Input: float ``(N, C, H, W)``, sides of 16 or more. Output: logits ``(N, num_classes)``.

    Args:
        widths: Number of channels in each block.
        scale: Factor on the logits; by default 1 / the last width. The head's initial weights compensate for another
            one, so that it changes how fast the head learns, but not the initial logits.
        in_channels: Number of channels C, set by the module that builds the network; 3 by default.
    """

    def __init__(
        self,
        num_classes: int,
        widths: Sequence[int] = (64, 256, 256),
        scale: float | None = None,
        in_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.whitening = nn.Conv2d(in_channels or 3, 8 * (in_channels or 3), 2)  # 2 filters for each value of a patch
        self.whitening.weight.requires_grad_(False)
        self.whitened: Tensor
        self.register_buffer("whitened", torch.tensor(False))  # saved with the weights, so that it is done once
        channels = [self.whitening.out_channels, *widths]
        self.blocks = nn.Sequential(*map(Block, channels[:-1], channels[1:]))
        self.head = nn.Linear(widths[-1], num_classes, bias=False)
        self.scale = scale if scale is not None else 1 / widths[-1]

        for module in self.blocks.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.dirac_(module.weight[: module.in_channels].detach())
        nn.init.normal_(self.head.weight, std=1 / (widths[-1] * self.scale))

    @torch.no_grad()
    def whiten(self, images: Tensor) -> None:
        """Set the first layer's weights so that its outputs are uncorrelated, with variance 1, or less for noise.

        Each filter is used together with its negative. A few thousand normalised training images are enough.
        """
        weight = self.whitening.weight
        count = len(weight) // 2
        patches = F.unfold(images.float(), 2).transpose(1, 2).reshape(-1, count)
        variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (directions / (variances + EPS_OF_WHITENING).sqrt()).T.reshape(count, -1, 2, 2)
        # grey as RGB gives only 4 filters; a channel that is always 0 would get huge gradients from the following norm
        filled = filters[variances >= EMPTY * variances[-1]]
        filters = filled.repeat(-(-count // len(filled)), 1, 1, 1)[:count]
        weight.copy_(torch.cat([filters, -filters]))
        self.whitened.fill_(True)

    def forward(self, images: Tensor) -> Tensor:
        x = F.gelu(self.whitening(images))
        x = self.blocks(x).amax(dim=(2, 3))
        return self.head(x) * self.scale
