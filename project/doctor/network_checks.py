"""Facts about a network, measured on copies of its module."""

import copy
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from callbacks.tools.layers import hooked, network_of
from callbacks.tools.outputs import Outputs
from project.doctor.symptoms import Facts

WARM_UP = 5  # steps of Adam after which a head of zeros has weights
WARM_LR = 1e-3
LARGE = 1000  # values in a tensor whose distribution is examined


def copies(module: Any, optimizer: Any = None) -> tuple[Any, Any]:
    """Return copies of a module and of the optimizer that trains it, which share no tensor with the originals."""
    # partials of jsonargparse cannot be copied, and hold no tensors
    shared = {id(each): each for each in vars(module).values() if isinstance(each, partial)}
    twin, own = copy.deepcopy((module, optimizer), shared)
    twin._compiled_network = None  # of ImageModule: it would call the original network
    return twin, own


def loss_of(module: Any, images: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of the module's training step, which may change the images that it gets in place."""
    loss = module.training_step((images.clone(), targets), 0)
    return loss["loss"] if isinstance(loss, dict) else loss


def use_batch_statistics(module: nn.Module) -> None:
    """Set a copy to eval mode, but let batch norm use the batch, because it has no other statistics before training."""
    for each in module.modules():
        each.training = isinstance(each, _BatchNorm)


def weight_layers(module: nn.Module) -> dict[str, Any]:
    """Return the layers that have a weight of two or more dimensions, by name."""
    layers = network_of(module).named_modules()
    return {name: each for name, each in layers if getattr(getattr(each, "weight", None), "ndim", 0) > 1}


def gradient_facts(module: Any, optimizer: Any, images: Tensor, targets: Tensor) -> tuple[Facts, Any]:
    """Return which parameters a few steps of Adam train, and the module after these steps."""
    twin, own = copies(module, optimizer)
    network, called = network_of(twin), set[str]()
    with hooked(dict(network.named_modules()), lambda name, *_: called.add(name)):
        loss = loss_of(twin, images, targets)
    registered, reached = {id(each) for each in twin.parameters()}, leaves(loss)
    has_gradient = any(id(each) in registered for each in reached)
    facts: Facts = {"loss_has_gradient": float(has_gradient), "first_loss_finite": float(loss.isfinite())}
    if not has_gradient:
        return facts, twin
    optimized = {id(each) for group in own.param_groups for each in group["params"]}
    later = {name for group in getattr(module, "groups", []) if group.rule.unfreeze_epoch for name in group.parameters}
    parameters = dict(network.named_parameters())
    trained = {name: each for name, each in parameters.items() if each.requires_grad}
    frozen = [each for name, each in parameters.items() if not each.requires_grad and name not in later]
    size = max(size_of(parameters.values()), 1)
    facts |= {
        "unregistered_values": size_of(each for each in reached if id(each) not in registered),
        "not_optimized": size_of(each for each in trained.values() if id(each) not in optimized) / size,
        "frozen_random": size_of(filter(looks_random, frozen)) / size,
    }
    if not loss.isfinite():
        return facts, twin
    adam, still = torch.optim.Adam([each for each in twin.parameters() if each.requires_grad], WARM_LR), dict(trained)
    for _ in range(WARM_UP):
        adam.zero_grad()
        loss_of(twin, images, targets).backward()
        still = {name: each for name, each in still.items() if each.grad is None or not each.grad.any()}
        adam.step()
    settle(twin, images)
    used = {name: each for name, each in still.items() if name.rpartition(".")[0] in called}
    symmetric = [name for name, layer in weight_layers(twin).items() if is_symmetric(layer.weight)]
    return facts | {
        "no_gradient": size_of(used.values()) / max(size_of(trained.values()), 1),
        "no_gradient_names": [*used],
        "unused_names": [name for name in still if name not in used],
        "symmetric_layers": len(symmetric),
        "symmetric_names": symmetric,
    }, twin


def uphill(module: Any, optimizer: Any, images: Tensor, targets: Tensor) -> Facts:
    """Return whether a first step goes to larger losses: whether it agrees with the gradient, without weight decay."""
    twin, own = copies(module, optimizer)
    loss_of(twin, images, targets).backward()
    parameters = [each for each in twin.parameters() if each.grad is not None]
    before = [(each.detach().clone(), each.grad.clone()) for each in parameters]
    for group in own.param_groups:
        group |= {"weight_decay": 0.0, "lr": group.get("initial_lr", group["lr"])}  # a warm-up may begin at 0
    own.step()
    way = sum(float(((new - old) * grad).sum()) for new, (old, grad) in zip(parameters, before, strict=True))
    return {"uphill": float(way > 0)} if way else {}


def size_of(tensors: Iterable[Tensor]) -> int:
    """Return the number of values in tensors."""
    return sum(each.numel() for each in tensors)


@torch.no_grad()
def settle(module: Any, images: Tensor) -> None:
    """Set the running statistics of batch norm to those of the images: a few steps hardly change them."""
    for each in module.modules():
        if isinstance(each, _BatchNorm) and each.running_mean is not None:
            each.reset_running_stats()
            each.momentum = None  # the mean over all batches
    use_batch_statistics(module)
    module(images.clone())


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


def is_symmetric(weight: Tensor) -> bool:
    """Return whether all units of a trained layer have the same weights."""
    rows = weight.detach().flatten(1)
    alike = (rows - rows.mean(0)).norm() <= 1e-3 * rows.norm()
    return weight.requires_grad and min(rows.shape) > 1 and bool(alike)


@torch.no_grad()
def turns(module: Any, images: Tensor) -> Facts:
    """Return how often brightness that rises across an image turns in what the first convolution receives.

    It rises once if images are resized, turned or normalised before, but often if a reshape scrambles their pixels.
    """
    rises = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in images.shape[2:]), indexing="ij")
    ramps, inputs = torch.stack(rises)[:, None].expand(-1, images.shape[1], -1, -1).to(images), list[Tensor]()
    layers = {name: each for name, each in weight_layers(module).items() if isinstance(each, nn.Conv2d)}
    with hooked(layers, lambda name, layer, args, output: inputs.append(args[0])):
        module(ramps.clone())
    if not inputs or inputs[0].ndim != 4 or len(inputs[0]) != len(ramps):
        return {}
    of_first, low, high = inputs[0], inputs[0].amin((2, 3)), inputs[0].amax((2, 3))
    length = of_first.diff(dim=2).abs().sum(2).mean(2) + of_first.diff(dim=3).abs().sum(3).mean(2)
    ways = torch.where(high > low, length / (high - low), torch.inf).amin(1)  # of the smoothest channel
    return {"pixel_turns": float(ways.max())} if ways.isfinite().all() else {}


@torch.no_grad()
def start_facts(module: Any, images: Tensor) -> Facts:
    """Return how signals of different images differ from the first to the last layer, before training."""
    layers = weight_layers(module)
    record = Outputs(
        lambda output: float(output.float().std(0).mean()),
        lambda function, output: (output.transpose(0, 1).flatten(1) == 0).all(1),
    )
    use_batch_statistics(module)
    with hooked(layers, record.keep), record:
        module(images.clone())
    stds = [each for each in record.before.values() if isinstance(each, float)]
    inner = stds[:-1]  # the head may be scaled, or 0
    # an output of exactly 0 is not faded, but cut
    facts: Facts = {"signal_ratio": min(inner) / inner[0]} if len(inner) > 1 and min(inner) > 0 else {}
    if record.after:
        facts["dead_at_start"] = float(torch.cat([*record.after.values()]).float().mean())
    types = {type(each) for each in layers.values()}
    facts["layer_types"] = sorted(each.__name__ for each in types if not types & {*each.__mro__[1:]})
    if layers:
        gains = [each.weight.square().mean().sqrt() * each.weight[0].numel() ** 0.5 for each in layers.values()]
        facts["weight_gain"] = float(torch.stack(gains).median())
    return facts | {"layers": len(stds)}


def evaluation_facts(module: Any, images: Tensor) -> Iterator[Facts]:
    """Yield on what the predictions of a network depend in eval mode."""
    module.train()  # eval() may be without effect
    module.eval()
    layers = [*network_of(module).modules()]
    yield {"modules_in_training_mode": sum(each.training for each in layers)}

    def outputs(x: Tensor) -> Tensor:
        return module(x.clone()).float()  # a network may change its input in place

    with torch.no_grad():
        first, second = outputs(images), outputs(images)
        # each at another place, among other images; the same size of the batch keeps the rounding
        order = torch.arange(1, len(images) + 1, device=images.device) % (len(images) // 2 + 1)
        mixed = (outputs(images[order]) - first[order]).abs().max()
        module.train()
        for each in module.modules():
            each.training &= not isinstance(each, (_BatchNorm, _DropoutNd))
        in_training, again = outputs(images), outputs(images[order])
        module.eval()
    spread, size = (first - first.mean(0)).abs().max(), first.abs().max().clamp_min(1e-12)
    scale = torch.maximum(spread, 1e-6 * size)
    noise = float((second - first).abs().max() / scale)
    yield {
        "eval_noise": noise,
        "batch_dependence": 0.0 if noise > 1e-3 else float(mixed / torch.maximum(spread, 1e-3 * size)),
        "input_dependence": float(spread / size),
    }
    if (again - in_training[order]).abs().max() <= 1e-3 * scale:  # no other norm, and nothing random
        yield {"mode_difference": float((in_training - first).abs().max() / scale)}
    yield turns(module, images)
    pixels = images.clone().requires_grad_()
    weighted = outputs(pixels) * torch.randn(first.shape, generator=torch.Generator().manual_seed(0)).to(first.device)
    (gradient,) = torch.autograd.grad(weighted.sum(), pixels, allow_unused=True)
    if gradient is not None and gradient.any():  # otherwise, a step without gradient is before the first layer
        yield {"pixel_coverage": float(gradient.any(0).float().mean())}
    x, y = images[: len(images) // 2], images[-(len(images) // 2) :]
    # with mean-pooling instead of max-pooling, a network without activations is affine
    with (
        torch.no_grad(),
        patch.object(F, "max_pool2d", lambda x, size, stride=None, pad=0, *_, **__: F.avg_pool2d(x, size, stride, pad)),
    ):
        of_sum, of_x, of_y, of_zero = (outputs(each) for each in (x + y, x, y, torch.zeros_like(x)))
    scale = (of_x - of_zero).abs().max().clamp_min(1e-12)
    yield {"affinity": float((of_sum - of_x - of_y + of_zero).abs().max() / scale)}
