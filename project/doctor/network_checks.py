"""Facts about a network, measured on copies of its module."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from callbacks.tools.layers import network_of

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
    module.eval()
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
    reached = {id(leaf): leaf for leaf in leaves(loss)}
    known = {id(each) for each in twin.parameters()}
    unregistered = [leaf for key, leaf in reached.items() if key not in known]
    facts["unregistered_values"] = sum(leaf.numel() for leaf in unregistered)
    optimized = {id(each) for group in own.param_groups for each in group["params"]}
    later = {name for group in getattr(module, "groups", []) if group.rule.unfreeze_epoch for name in group.parameters}
    frozen = [each for name, each in network.named_parameters() if not each.requires_grad and name not in later]
    total = max(sum(each.numel() for each in network.parameters()), 1)
    facts["not_optimized"] = sum(each.numel() for each in parameters.values() if id(each) not in optimized) / total
    facts["frozen_random"] = sum(each.numel() for each in frozen if looks_random(each)) / total
    warm = torch.optim.Adam([each for each in twin.parameters() if each.requires_grad], WARM_LR)
    moved: set[str] = set()
    for _ in range(WARM_UP if loss.isfinite() else 0):
        warm.zero_grad()
        loss_of(twin, images, targets).backward()
        moved |= {name for name, each in parameters.items() if each.grad is not None and bool(each.grad.any())}
        warm.step()
    if not loss.isfinite():
        return facts, twin
    settle(twin, images)
    still = {name: each for name, each in parameters.items() if name not in moved}
    trained = max(sum(each.numel() for each in parameters.values()), 1)
    owner = {f"{name}.{key}".lstrip("."): each for name, each in network.named_modules() for key in each._parameters}
    facts["no_gradient"] = sum(each.numel() for name, each in still.items() if owner[name] in called) / trained
    facts["no_gradient_names"] = [name for name in still if owner[name] in called]
    facts["unused_names"] = [name for name in still if owner[name] not in called]
    return facts, twin


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
    """Return whether the values of a large tensor have the kurtosis of a uniform or normal distribution.

    Trained weights have heavier tails.
    """
    values = weight.detach().double().flatten()
    if len(values) < LARGE or values.std() == 0:
        return False
    kurtosis = float(((values - values.mean()) / values.std()).pow(4).mean())
    error = (24 / len(values)) ** 0.5
    return abs(kurtosis - 1.8) < 2 * error or abs(kurtosis - 3) < 3 * error


def symmetry(module: Any) -> Facts:
    """Return the layers whose units all have the same weights."""
    names = []
    for name, layer in weight_layers(module).items():
        rows = layer.weight.detach().flatten(1)
        if len(rows) > 1 and rows.shape[1] > 1 and layer.weight.requires_grad:
            spread = (rows - rows.mean(0)).norm() / rows.norm().clamp_min(1e-30)
            if spread < 1e-3:
                names.append(name)
    return {"symmetric_layers": len(names), "symmetric_names": names}


@torch.no_grad()
def start_facts(module: Any, images: Tensor) -> Facts:
    """Return how signals of different images differ from the first to the last layer, before training."""
    stds: dict[str, float] = {}
    layers = weight_layers(module)

    def record(name: str) -> Callable[..., None]:
        return lambda layer, args, output: stds.update({name: float(output.float().std(0).mean())})

    handles = [layer.register_forward_hook(record(name)) for name, layer in layers.items()]
    with batch_statistics(module):
        module(images)
    for handle in handles:
        handle.remove()
    facts: Facts = {"layers": len(stds)}
    inner = [*stds.values()][:-1]  # the head may be scaled, or 0
    if len(inner) > 1 and min(inner) > 0:  # an output of exactly 0 is not faded, but cut
        facts["signal_ratio"] = min(inner) / inner[0]
    return facts


@torch.no_grad()
def evaluation_facts(module: Any, images: Tensor) -> Facts:
    """Return whether predictions depend on anything but the image itself, in eval mode."""
    module.eval()
    first = module(images)
    scale = max(float((first - first.mean(0)).abs().max()), 1e-6 * float(first.abs().max()), 1e-12)
    modes = sum(each.training for each in network_of(module).modules())
    again = float((module(images) - first).abs().max()) / scale
    # image 0 among other images; twice the same one keeps the size of the batch, and so the rounding
    others = torch.cat([images[:1], images.flip(0)[: len(images) // 2], images[:1].expand_as(images)])[: len(images)]
    mixed = float((module(others)[0] - first[0]).abs().max()) / scale
    uses_batch = [
        each for each in network_of(module).modules() if isinstance(each, _BatchNorm) and each.running_mean is None
    ]
    return {
        "eval_noise": again,
        "batch_dependence": 0.0 if again > 1e-3 else mixed,
        "modules_in_training_mode": modes,
        "norms_without_statistics": len(uses_batch),
        "input_dependence": float((first - first.mean(0)).abs().max() / first.abs().max().clamp_min(1e-12)),
    }


def pixel_coverage(module: Any, images: Tensor) -> float:
    """Return the share of pixels that influence the outputs, in eval mode."""
    module.eval()
    images = images.clone().requires_grad_()
    outputs = module(images).float()
    weights = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0)).to(outputs.device)
    (gradient,) = torch.autograd.grad((outputs * weights).sum(), images, allow_unused=True)
    return 0.0 if gradient is None else float((gradient.abs().amax((0, 1)) > 0).float().mean())


class MeanPooling(TorchFunctionMode):
    """Replace max-pooling by average pooling, which is linear."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if "max_pool2d" in getattr(func, "__name__", "") and "adaptive" not in func.__name__:
            kwargs = {key: value for key, value in kwargs.items() if key in ("kernel_size", "stride", "padding")}
            return F.avg_pool2d(*args[:4], **kwargs)
        return func(*args, **kwargs)


@torch.no_grad()
def affinity(module: Any, images: Tensor) -> float:
    """Return by how much the network differs from an affine function, relative to its outputs, without max-pooling."""
    module.eval()
    x, y = images.chunk(2)
    x, y = x[: len(y)], y[: len(x)]
    with MeanPooling():
        of_sum, of_x, of_y, of_zero = (module(each) for each in (x + y, x, y, torch.zeros_like(x)))
    scale = (of_x - of_zero).abs().max().clamp_min(1e-12)
    return float((of_sum - of_x - of_y + of_zero).abs().max() / scale)
