"""What layers and their activations return."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# activations that a network may call as a module, as a function or as a tensor method
ACTIVATIONS = {"relu", "relu_", "relu6", "leaky_relu", "prelu", "elu", "celu", "selu", "gelu", "silu", "mish", "tanh"}
ACTIVATIONS |= {"sigmoid", "softplus", "softsign", "hardtanh", "hardswish", "hardsigmoid", "logsigmoid", "rrelu"}


class Outputs(TorchFunctionMode):
    """Record the outputs of layers and of the next activation, whether it is a module or a call in ``forward``.

    Register ``keep`` as the forward hook of each layer. The activation of a layer is the first one called after it that
    receives as many channels; a norm or a sum may come between them.

    Args:
        of_layer: Returns what to keep of an output, which an activation may then change in place.
        of_activation: The same for an activation, called with the name of its function and its output.
    """

    def __init__(self, of_layer: Callable[[Tensor], Any], of_activation: Callable[[str, Tensor], Any]) -> None:
        super().__init__()
        self.of_layer, self.of_activation = of_layer, of_activation
        self.before: dict[str, Any] = {}
        self.after: dict[str, Any] = {}
        self._open: dict[str, int] = {}  # number of channels of the layers whose activation has not been called yet

    def keep(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        self.before[name] = output
        if isinstance(output, Tensor) and output.ndim > 1:
            self.before[name] = self.of_layer(output)
            self._open[name] = output.shape[1]

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        function = getattr(func, "__name__", "")
        if self._open and function in ACTIVATIONS and isinstance(output, Tensor):
            for name in [name for name, channels in self._open.items() if output.shape[1:2] == (channels,)]:
                self.after[name] = self.of_activation(function, output)
                del self._open[name]
        return output
