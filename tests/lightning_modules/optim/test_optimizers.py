import copy

import pytest
import torch
from torch import nn
from training import module_of, trace

from lightning_modules.optim.optimizers import Muon, orthogonalize


@pytest.mark.parametrize(
    ("optimizer", "arguments"),
    [
        ("torch.optim.SGD", "lr: 0.05, momentum: 0.9, nesterov: true, weight_decay: 1.0e-4"),
        ("torch.optim.Rprop", "lr: 0.001, etas: [0.5, 1.2], step_sizes: [1.0e-6, 1]"),
        ("torch.optim.RMSprop", "lr: 0.001, alpha: 0.9, momentum: 0.5, centered: true"),
        ("torch.optim.Adagrad", "lr: 0.01, lr_decay: 0.01"),
        ("torch.optim.AdamW", "lr: 0.002, weight_decay: 0.05, betas: [0.9, 0.99]"),
        ("torch.optim.LBFGS", "lr: 0.1, max_iter: 4, history_size: 5"),
        ("lightning_modules.optim.Muon", "lr: 0.02, ns_steps: 3, normalize: true"),
    ],
)
def test_every_optimizer_trains_from_yaml(optimizer: str, arguments: str) -> None:
    losses = trace(module_of("ImageClassifier", f"optimizer: {{class_path: {optimizer}, init_args: {{{arguments}}}}}"))
    assert losses[-1] < 0.99 * losses[0]


@pytest.mark.parametrize("shape", [(3, 16, 144), (1, 40, 10), (2, 8, 8)])
def test_an_orthogonalized_matrix_keeps_its_singular_vectors_and_has_values_near_1(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    result = orthogonalize(matrices, 8)
    assert result.shape == shape
    values = torch.linalg.svdvals(result.double())
    assert 0.65 < values.min() <= values.max() < 1.25
    u, _, vh = torch.linalg.svd(matrices.double(), full_matrices=False)
    core = u.mT @ result.double() @ vh.mT  # diagonal if the singular vectors are the same
    off_diagonal = core - torch.diag_embed(core.diagonal(dim1=1, dim2=2))
    assert off_diagonal.abs().max() < 1e-4
    in_bfloat16 = orthogonalize(matrices.bfloat16(), 8)
    assert in_bfloat16.dtype == torch.bfloat16
    assert torch.linalg.svdvals(in_bfloat16.double()).min() > 0.5


def filters(count: int, *shape: int) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for _ in range(count)]


def set_gradients(params: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for param in params:
        param.grad = torch.randn(param.shape, generator=generator)


def test_a_filter_steps_by_lr_times_an_orthogonal_matrix_of_its_momentum() -> None:
    params = filters(2, 8, 3, 3, 3)
    optimizer = Muon(params, lr=0.1, momentum=0.5, nesterov=True, weight_decay=0.2, ns_steps=8)
    momenta = [torch.zeros(8, 3, 3, 3) for _ in params]
    for step in (1, 2):
        before = [param.detach().clone() for param in params]
        set_gradients(params, step)
        optimizer.step()
        for i, (param, old) in enumerate(zip(params, before, strict=True)):
            momenta[i] = 0.5 * momenta[i] + param.grad
            ahead = param.grad + 0.5 * momenta[i]
            update = (old * (1 - 0.1 * 0.2) - param.detach()) / 0.1
            torch.testing.assert_close(update, orthogonalize(ahead.reshape(1, 8, 27), 8).view(8, 3, 3, 3))


def test_a_normalized_filter_has_the_norm_of_the_root_of_its_width_before_its_step() -> None:
    [param], [zeros] = filters(1, 16, 4, 3, 3), [nn.Parameter(torch.zeros(4, 3))]
    direction = param.detach() / param.detach().norm()
    set_gradients([param, zeros], 1)
    Muon([param, zeros], lr=1e-6, normalize=True).step()
    torch.testing.assert_close(param.detach(), 4 * direction, atol=1e-5, rtol=0)
    assert torch.isfinite(zeros).all()


def test_other_parameters_step_like_sgd() -> None:
    ours = [*filters(2, 7), *filters(1, 3, 5)]
    theirs = [nn.Parameter(param.detach().clone()) for param in ours]
    options = {"lr": 0.1, "momentum": 0.85, "nesterov": True, "weight_decay": 0.3}
    muon = Muon([{"params": ours[:2]}, {"params": ours[2:], "orthogonal": False}], **options)
    sgd = torch.optim.SGD(theirs, **options)
    for step in range(10):
        for params, optimizer in ((ours, muon), (theirs, sgd)):
            set_gradients(params, step)
            optimizer.step()
        for parameter, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(parameter, other)


def test_filters_may_be_channels_last() -> None:
    plain, last = filters(1, 8, 4, 3, 3), filters(1, 8, 4, 3, 3)
    last[0].data = last[0].data.to(memory_format=torch.channels_last)
    for params in (plain, last):
        set_gradients(params, 1)
        Muon(params, lr=0.1, normalize=True).step()
    assert last[0].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(plain[0], last[0])


def test_muon_resumes_from_its_saved_state() -> None:
    params = filters(1, 8, 4, 3, 3) + filters(1, 5)
    optimizer = Muon(params, lr=0.1)
    set_gradients(params, 1)
    optimizer.step()
    copies = [nn.Parameter(param.detach().clone()) for param in params]
    copied = Muon(copies, lr=0.5)
    copied.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for group, one in ((params, optimizer), (copies, copied)):
        set_gradients(group, 2)
        one.step()
    for param, twin in zip(params, copies, strict=True):
        torch.testing.assert_close(param, twin, atol=0, rtol=0)


@pytest.mark.cuda
def test_muon_never_synchronises_with_the_device() -> None:
    params = [nn.Parameter(param.detach().cuda()) for param in filters(2, 8, 4, 3, 3) + filters(1, 5)]
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer = Muon(params, lr=0.1, normalize=True, weight_decay=0.1)
    optimizer.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
