"""Recurrent networks over the rows of an image."""

from typing import Literal

from torch import Tensor, nn

CELLS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class Recurrent(nn.Module):
    """Recurrent layers over the rows of an image, top to bottom, and a linear layer on the final state.

    Input: float ``(N, C, H, W)`` with fixed W. Output: logits ``(N, num_classes)``.

    Args:
        cell: Gated recurrent unit (Cho et al., 2014), long short-term memory (Hochreiter and Schmidhuber, 1997) or
            plain recurrence with tanh.
        hidden_size: Number of units in each layer and direction.
        num_layers: Number of stacked layers.
        bidirectional: Whether to read the rows from bottom to top as well.
        dropout: Probability that a unit is dropped between layers in training.
        image_size: W in pixels, set by the module that builds the network; 32 by default.
        in_channels: Number of channels C, set by the module that builds the network; 3 by default.
    """

    def __init__(
        self,
        num_classes: int,
        cell: Literal["gru", "lstm", "rnn"] = "gru",
        hidden_size: int = 128,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        image_size: int | None = None,
        in_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.rnn = CELLS[cell](
            input_size=(in_channels or 3) * (image_size or 32),
            hidden_size=hidden_size,
            num_layers=num_layers,
            batch_first=True,
            dropout=dropout,
            bidirectional=bidirectional,
        )
        self.directions = 2 if bidirectional else 1
        self.fc = nn.Linear(self.directions * hidden_size, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        rows = images.transpose(1, 2).flatten(2)  # (N, H, C * W)
        _, state = self.rnn(rows)
        if isinstance(state, tuple):  # of an LSTM: hidden state and cell state
            state = state[0]
        last_layer = state[-self.directions :]  # (directions, N, hidden_size)
        return self.fc(last_layer.transpose(0, 1).flatten(1))
