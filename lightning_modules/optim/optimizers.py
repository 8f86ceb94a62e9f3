"""Muon for all parameters of a network; torch's version supports only matrices."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

Tensors = list[Tensor] | tuple[Tensor, ...]

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # of x, x^3 and x^5 (Jordan, 2024): steep at 0, not exact at 1


class Muon(Optimizer):
    """SGD with momentum and orthogonalised steps for weights of two or more dimensions.

    The momentum of such a weight, as a matrix ``(out, rest)``, is replaced by the nearest matrix whose singular values
    are all about 1, so that no direction dominates. Biases and norms take torch's SGD step, with ``weight_decay`` added
    to the gradient; all other weights are decayed by ``lr * weight_decay``, as in AdamW.

    Source: Jordan, 2024, "Muon: An optimizer for hidden layers in neural networks".

    Args:
        params: Parameters or param groups.
        lr: Learning rate.
        momentum: Momentum factor.
        nesterov: Use Nesterov momentum.
        weight_decay: Weight decay.
        ns_steps: Newton-Schulz steps; 3 to 5 are enough.
        normalize: Before each orthogonal step, scale the weight to the norm ``sqrt(out)``.
        orthogonal: Take orthogonal steps; set to False as an option of the param group of an output layer.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        ns_steps: int = 5,
        normalize: bool = False,
        orthogonal: bool = True,
    ) -> None:
        options = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay, "ns_steps": ns_steps}
        super().__init__(params, {"lr": lr, **options, "normalize": normalize, "orthogonal": orthogonal})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step without synchronising with the device."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            filters = [param for param in params if group["orthogonal"] and param.ndim > 1]
            others = [param for param in params if not group["orthogonal"] or param.ndim < 2]
            if filters:
                self._step_orthogonally(filters, group)
            if others:
                self._step_plainly(others, group)
        return loss

    def _step_plainly(self, params: list[Tensor], group: dict[str, Any]) -> None:
        grads = torch._foreach_add(gradients(params), params, alpha=group["weight_decay"])
        torch._foreach_add_(params, self._momentum(params, grads, group), alpha=-group["lr"])

    def _step_orthogonally(self, params: list[Tensor], group: dict[str, Any]) -> None:
        updates = self._momentum(params, gradients(params), group)
        if group["normalize"]:
            norms = torch._foreach_norm(params)
            torch._foreach_clamp_min_(norms, 1e-7)  # for a layer initialised with zeros
            torch._foreach_div_(params, norms)
            torch._foreach_mul_(params, [len(param) ** 0.5 for param in params])
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for param, update in zip(params, updates, strict=True):
            matrix = update.flatten(1)
            by_shape[matrix.shape].append((param, matrix))
        for pairs in by_shape.values():
            stack = torch.stack([matrix for _, matrix in pairs])
            # on a CPU, bfloat16 takes 10 to 20 times as long as float32
            stack = orthogonalize(stack.to(torch.bfloat16 if stack.is_cuda else torch.float32), group["ns_steps"])
            for (param, _), step in zip(pairs, stack, strict=True):
                param.add_(step.view(param.shape), alpha=-group["lr"])

    def _momentum(self, params: list[Tensor], grads: Tensors, group: dict[str, Any]) -> Tensors:
        """Add gradients to the momentum, and return the resulting updates."""
        for param in params:
            if not self.state[param]:
                self.state[param]["momentum_buffer"] = torch.zeros_like(param)
        momenta = [self.state[param]["momentum_buffer"] for param in params]
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, grads)
        return torch._foreach_add(grads, momenta, alpha=group["momentum"]) if group["nesterov"] else momenta


def gradients(params: Iterable[Tensor]) -> list[Tensor]:
    """Return the gradients of the parameters that have one."""
    return [param.grad for param in params if param.grad is not None]


def orthogonalize(matrices: Tensor, steps: int) -> Tensor:
    """Return the matrices ``(N, rows, columns)`` with singular values of about 1: 0.7 to 1.2 after 5 steps.

    Values far below the largest need more steps, because each step increases a value by at most a factor of 3.4.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalize(matrices.mT, steps).mT
    a, b, c = NEWTON_SCHULZ
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    if x.dtype != torch.float32:
        for _ in range(steps):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return x
    # the same on the (rows, rows) matrix takes half the time for wide matrices, but needs float32
    gram = x @ x.mT
    identity = product = torch.eye(len(gram[0]), device=x.device).expand_as(gram)
    for _ in range(steps):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c).add_(identity, alpha=a)
        product = factor @ product
        gram = factor @ gram @ factor
    return product @ x
