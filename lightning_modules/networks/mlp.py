"""Networks of linear layers on the flattened image."""

from collections.abc import Sequence

from torch import Tensor, nn


class MLP(nn.Sequential):
    """Multilayer perceptron: linear layers with ReLU and dropout (Srivastava et al., 2014) between them.

    Input: float ``(N, C, H, W)`` of one size. Output: logits ``(N, num_classes)``.

    Args:
        hidden: Number of units in each hidden layer.
        dropout: Probability that a hidden unit is dropped in training.
        image_size: H and W in pixels, set by the module that builds the network; 32 by default.
        in_channels: Number of channels C, set by the module that builds the network; 3 by default.
    """

    def __init__(
        self,
        num_classes: int,
        hidden: Sequence[int] = (512, 256),
        dropout: float = 0.5,
        image_size: int | None = None,
        in_channels: int | None = None,
    ) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        features = (in_channels or 3) * (image_size or 32) ** 2
        for width in hidden:
            layers += [nn.Linear(features, width), nn.ReLU(), nn.Dropout(dropout)]
            features = width
        super().__init__(*layers, nn.Linear(features, num_classes))


class SoftmaxRegression(nn.Module):
    """One linear layer, whose weights form a template image for each class; the loss applies the softmax.

    Input: float ``(N, C, H, W)`` of one size. Output: logits ``(N, num_classes)``.

    Args:
        image_size: H and W in pixels, set by the module that builds the network; 32 by default.
        in_channels: Number of channels C, set by the module that builds the network; 3 by default.
    """

    def __init__(self, num_classes: int, image_size: int | None = None, in_channels: int | None = None) -> None:
        super().__init__()
        self.fc = nn.Linear((in_channels or 3) * (image_size or 32) ** 2, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(images.flatten(1))
