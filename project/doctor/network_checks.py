"""Facts about a network, measured on copies of its module."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from callbacks.tools.layers import hooked, network_of
from callbacks.tools.outputs import Outputs

Facts = dict[str, Any]
WARM_UP = 5  # steps of Adam after which a head of zeros has weights
WARM_LR = 1e-3
LARGE = 1000  # values in a tensor whose distribution is examined


def copies(module: Any, *others: Any) -> Any:
    """Return copies of a module, and of optimizers that train it, that share no tensor with the originals."""
    # partials of jsonargparse cannot be copied, and hold no tensors
    shared = {id(each): each for each in vars(module).values() if isinstance(each, partial)}
    twins = copy.deepcopy((module, *others), shared)
    twins[0]._compiled_network = None  # of ImageModule: it would call the original network
    return twins if others else twins[0]


def loss_of(module: Any, images: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of the module's training step."""
    loss = module.training_step((images, targets), 0)
    return loss["loss"] if isinstance(loss, dict) else loss


@contextmanager
def batch_statistics(module: nn.Module) -> Iterator[None]:
    """Let batch norm use the statistics of the batch, because it has no others before training; without dropout."""
    modes = {each: each.training for each in module.modules()}
    for each in module.modules():
        each.training = isinstance(each, _BatchNorm)
    try:
        yield
    finally:
        for each, mode in modes.items():
            each.training = mode


def weight_layers(module: nn.Module) -> dict[str, Any]:
    """Return the layers that have a weight of two or more dimensions, by name."""
    layers = network_of(module).named_modules()
    return {name: each for name, each in layers if getattr(getattr(each, "weight", None), "ndim", 0) > 1}


def gradient_facts(module: Any, optimizer: Any, images: Tensor, targets: Tensor) -> tuple[Facts, Any]:
    """Return which parameters a few steps of Adam train, and the module after these steps."""
    twin, own = copies(module, optimizer)
    network = network_of(twin)
    called: set[nn.Module] = set()
    handles = [each.register_forward_hook(lambda layer, *_: called.add(layer)) for each in network.modules()]
    loss = loss_of(twin, images, targets)
    for handle in handles:
        handle.remove()
    facts: Facts = {"loss_has_gradient": float(loss.requires_grad), "first_loss_finite": float(loss.isfinite())}
    if not loss.requires_grad:
        return facts, twin
    parameters = {name: each for name, each in network.named_parameters() if each.requires_grad}
    known = {id(each) for each in twin.parameters()}
    facts["unregistered_values"] = sum(leaf.numel() for leaf in leaves(loss) if id(leaf) not in known)
    optimized = {id(each) for group in own.param_groups for each in group["params"]}
    later = {name for group in getattr(module, "groups", []) if group.rule.unfreeze_epoch for name in group.parameters}
    frozen = [each for name, each in network.named_parameters() if not each.requires_grad and name not in later]
    total = max(sum(each.numel() for each in network.parameters()), 1)
    facts["not_optimized"] = sum(each.numel() for each in parameters.values() if id(each) not in optimized) / total
    facts["frozen_random"] = sum(each.numel() for each in frozen if looks_random(each)) / total
    if not loss.isfinite():
        return facts, twin
    warm = torch.optim.Adam([each for each in twin.parameters() if each.requires_grad], WARM_LR)
    still = dict(parameters)
    for _ in range(WARM_UP):
        warm.zero_grad()
        loss_of(twin, images, targets).backward()
        still = {name: each for name, each in still.items() if each.grad is None or not each.grad.any()}
        warm.step()
    settle(twin, images)
    owner = {f"{name}.{key}".lstrip("."): each for name, each in network.named_modules() for key in each._parameters}
    used = {name: each for name, each in still.items() if owner[name] in called}
    trained = max(sum(each.numel() for each in parameters.values()), 1)
    names = {"no_gradient_names": [*used], "unused_names": [name for name in still if name not in used]}
    return facts | names | {"no_gradient": sum(each.numel() for each in used.values()) / trained}, twin


@torch.no_grad()
def settle(module: Any, images: Tensor) -> None:
    """Set the running statistics of batch norm to those of the images: a few steps hardly change them."""
    for each in module.modules():
        if isinstance(each, _BatchNorm) and each.running_mean is not None:
            each.reset_running_stats()
            each.momentum = None  # the mean over all batches
    with batch_statistics(module):
        module(images)


def leaves(loss: Tensor) -> list[Tensor]:
    """Return the tensors for which a backward pass accumulates a gradient."""
    stack, visited, found = [loss.grad_fn], set(), []
    while stack:
        node = stack.pop()
        if node is not None and node not in visited:
            visited.add(node)
            if hasattr(node, "variable"):
                found.append(node.variable)
            stack += [each for each, _ in node.next_functions]
    return found


def looks_random(weight: Tensor) -> bool:
    """Return whether the values have the kurtosis of a uniform or normal distribution; trained ones have a larger."""
    values = weight.detach().double().flatten()
    if len(values) < LARGE or values.std() == 0:
        return False
    kurtosis = float(((values - values.mean()) / values.std()).pow(4).mean())
    return min(abs(kurtosis - 1.8), abs(kurtosis - 3)) < 3 * (24 / len(values)) ** 0.5


def symmetry(module: Any) -> Facts:
    """Return the layers whose units all have the same weights."""
    names = []
    for name, layer in weight_layers(module).items():
        rows = layer.weight.detach().flatten(1)
        alike = bool((rows - rows.mean(0)).norm() < 1e-3 * rows.norm().clamp_min(1e-30))
        if alike and min(rows.shape) > 1 and layer.weight.requires_grad:
            names.append(name)
    return {"symmetric_layers": len(names), "symmetric_names": names}


@torch.no_grad()
def start_facts(module: Any, images: Tensor) -> Facts:
    """Return how signals of different images differ from the first to the last layer, before training."""
    layers = weight_layers(module)
    record = Outputs(
        lambda output: float(output.float().std(0).mean()),
        lambda function, output: (output.transpose(0, 1).flatten(1) == 0).all(1),
    )
    with batch_statistics(module), hooked(layers, record.keep), record:
        module(images)
    stds = [each for each in record.before.values() if isinstance(each, float)]
    inner = stds[:-1]  # the head may be scaled, or 0
    # an output of exactly 0 is not faded, but cut
    facts: Facts = {"signal_ratio": min(inner) / inner[0]} if len(inner) > 1 and min(inner) > 0 else {}
    if record.after:
        facts["dead_at_start"] = float(torch.cat([*record.after.values()]).float().mean())
    facts["layer_types"] = sorted({type(each).__name__ for each in layers.values()})
    if layers:
        gains = [each.weight.square().mean().sqrt() * each.weight[0].numel() ** 0.5 for each in layers.values()]
        facts["weight_gain"] = float(torch.stack(gains).median())
    return facts | {"layers": len(stds)}


def evaluation_facts(module: Any, images: Tensor) -> Iterator[Facts]:
    """Yield on what the predictions of a network depend in eval mode."""
    module.eval()
    layers = [*network_of(module).modules()]
    norms = [each for each in layers if isinstance(each, _BatchNorm) and each.running_mean is None]
    yield {"modules_in_training_mode": sum(each.training for each in layers), "norms_without_statistics": len(norms)}
    with torch.no_grad():
        first, second = module(images), module(images)
        # image 0 among other images; twice the same one keeps the size of the batch, and so the rounding
        others = torch.cat([images[:1], images.flip(0)[: len(images) // 2], images[:1].expand_as(images)])
        mixed = (module(others[: len(images)])[0] - first[0]).abs().max()
    spread, size = (first - first.mean(0)).abs().max(), first.abs().max().clamp_min(1e-12)
    scale = torch.maximum(spread, 1e-6 * size)
    noise = float((second - first).abs().max() / scale)
    yield {
        "eval_noise": noise,
        "batch_dependence": 0.0 if noise > 1e-3 else float(mixed / scale),
        "input_dependence": float(spread / size),
    }
    pixels = images.clone().requires_grad_()
    outputs = module(pixels).float()
    weights = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0)).to(outputs.device)
    (gradient,) = torch.autograd.grad((outputs * weights).sum(), pixels, allow_unused=True)
    yield {"pixel_coverage": 0.0 if gradient is None else float((gradient.abs().amax((0, 1)) > 0).float().mean())}
    x, y = images[::2], images[1::2]
    x = x[: len(y)]
    # without max-pooling, a network without activations is affine
    with torch.no_grad(), patch.object(F, "max_pool2d", mean_pool):
        of_sum, of_x, of_y, of_zero = (module(each) for each in (x + y, x, y, torch.zeros_like(x)))
    scale = (of_x - of_zero).abs().max().clamp_min(1e-12)
    yield {"affinity": float((of_sum - of_x - of_y + of_zero).abs().max() / scale)}


def mean_pool(x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, *_: Any, **__: Any) -> Tensor:
    """Replace max-pooling by average pooling, which is linear."""
    return F.avg_pool2d(x, kernel_size, stride, padding)
