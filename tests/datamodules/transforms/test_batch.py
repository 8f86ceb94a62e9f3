"""Compare the distribution of every batch transform with torchvision's; all seeds are fixed."""

import functools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2

from datamodules import DataError
from datamodules.transforms.auto_augment import RandAugment, TrivialAugmentWide
from datamodules.transforms.batch import (
    AlternatingFlip,
    BatchContext,
    BatchTransform,
    CutMix,
    Cutout,
    MixUp,
    ProgressiveResize,
    RandomCrop,
    RandomHorizontalFlip,
    _hash,
)
from datamodules.transforms.boxes import RandomErasing, RandomResizedCrop
from datamodules.transforms.color import ColorJitter, RandomGrayscale
from datamodules.transforms.geometry import RandomAffine, RandomRotation

OURS, THEIRS = 20_000, 2_000  # draws of this project's and of torchvision's transforms
HEIGHT, WIDTH = 6, 9
CLASSES = 10
DTYPES = [torch.uint8, torch.float32]
ALL = [
    RandomCrop(2),
    RandomCrop(2, size=5, padding_mode="reflect"),
    RandomHorizontalFlip(),
    AlternatingFlip(),
    Cutout(3),
    MixUp(),
    CutMix(),
    RandomResizedCrop(8),
    RandomErasing(),
    RandomErasing(value="random"),
    RandomRotation(30, fill=[1, 2, 3]),
    RandomAffine(30, (0.2, 0.2), (0.5, 2), 10, "bilinear"),
    ColorJitter(0.4, 0.4, 0.4, 0.2),
    RandomGrayscale(0.5),
    TrivialAugmentWide(),
    RandAugment(interpolation="bilinear", fill=9),
]


def make_draw(count: int, seed: int = 0, epoch: int = 0, device: str = "cpu") -> BatchContext:
    generator = torch.Generator(device).manual_seed(seed)
    return BatchContext(generator, epoch, torch.arange(count, device=device), seed, CLASSES)


def make_batch(count: int, dtype: torch.dtype = torch.uint8, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Return random images without black pixels, and targets that differ from their predecessors."""
    images = torch.randint(1, 256, (count, 3, HEIGHT, WIDTH), generator=torch.Generator().manual_seed(1))
    images = images.to(dtype) if dtype == torch.uint8 else images.to(dtype) / 7
    return images.to(device), torch.arange(count, device=device) % CLASSES


def repeated(transform: BatchTransform, image: Tensor, **draw: Any) -> Tensor:
    """Transform many copies of an image."""
    return transform(image.repeat(OURS, 1, 1, 1), torch.zeros(OURS).long(), make_draw(OURS, **draw))[0]


def recognised(images: Tensor, candidates: list[Tensor]) -> np.ndarray:
    """Return the index of the candidate that equals each image."""
    number = {candidate.numpy().tobytes(): index for index, candidate in enumerate(candidates)}
    assert len(number) == len(candidates)
    return np.array([number[image.tobytes()] for image in images.numpy()])


def assert_uniform(draws: np.ndarray, kinds: int) -> None:
    assert stats.chisquare(np.bincount(draws, minlength=kinds)).pvalue > 0.001


def all_crops(image: Tensor, size: int | None, mode: str) -> list[Tensor]:
    height, width = (size, size) if size else (HEIGHT, WIDTH)
    padded = v2.functional.pad(image, [2], padding_mode=mode)
    rows, columns = range(HEIGHT + 4 - height + 1), range(WIDTH + 4 - width + 1)
    return [v2.functional.crop(padded, top, left, height, width).contiguous() for top in rows for left in columns]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [None, 5])
@pytest.mark.parametrize(("mode", "their_mode"), [("zeros", "constant"), ("reflect", "reflect")])
def test_crops_are_distributed_uniformly_over_torchvisions(
    dtype: torch.dtype, size: int | None, mode: Any, their_mode: str
) -> None:
    image = make_batch(1, dtype)[0][0]
    candidates = all_crops(image, size, their_mode)
    assert_uniform(recognised(repeated(RandomCrop(2, size, mode), image), candidates), len(candidates))


def test_every_crop_is_of_its_own_image_at_its_own_place() -> None:
    images, targets = make_batch(50)
    crops, same = RandomCrop(2, 5)(images, targets, make_draw(50))
    places = [
        recognised(crop[None], all_crops(image, 5, "constant"))[0] for crop, image in zip(crops, images, strict=True)
    ]
    assert len(set(places)) > 20
    assert same is targets


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0, 0.2, 0.5, 1])
def test_flips_are_as_frequent_as_asked_for_and_equal_torchvisions(dtype: torch.dtype, p: float) -> None:
    image = make_batch(1, dtype)[0][0]
    candidates = [image, v2.functional.horizontal_flip(image).contiguous()]
    rate = recognised(repeated(RandomHorizontalFlip(p), image), candidates).mean()
    assert abs(rate - p) <= 4 * (p * (1 - p) / OURS) ** 0.5


def test_alternating_flip_flips_half_and_then_the_other_half() -> None:
    image = make_batch(1)[0][0]
    first, second, third = (
        recognised(repeated(AlternatingFlip(), image, epoch=epoch), [image, image.flip(-1)]) for epoch in range(3)
    )
    assert abs(first.mean() - 0.5) < 2 / OURS**0.5
    assert (second == 1 - first).all()
    assert (third == first).all()


def test_alternating_flip_depends_on_the_image_and_not_on_its_place_in_the_batch() -> None:
    images, targets = make_batch(100)
    draw = make_draw(100)
    order = torch.randperm(100, generator=draw.generator)
    shuffled = BatchContext(draw.generator, draw.epoch, draw.positions[order], draw.seed, draw.num_classes)
    expected = AlternatingFlip()(images, targets, draw)[0][order]
    assert torch.equal(AlternatingFlip()(images[order], targets, shuffled)[0], expected)


def test_hash_is_splitmix64() -> None:
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert [value % 2**64 for value in _hash(torch.arange(5), 1234567).tolist()] == known


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("size", "fill"), [(1, 0), (4, 0), (5, 200)])
def test_cutouts_are_distributed_uniformly_over_torchvisions(dtype: torch.dtype, size: int, fill: float) -> None:
    image = make_batch(1, dtype)[0][0]
    corners = [(top, left) for top in range(HEIGHT - size + 1) for left in range(WIDTH - size + 1)]
    value = torch.tensor([fill], dtype=dtype)[:, None, None]
    candidates = [v2.functional.erase(image, top, left, size, size, value) for top, left in corners]
    assert_uniform(recognised(repeated(Cutout(size, fill), image), candidates), len(corners))


def mixed_targets(share: Tensor, targets: Tensor) -> Tensor:
    soft = F.one_hot(targets, CLASSES).float()
    return share[:, None] * soft + (1 - share[:, None]) * soft.roll(1, 0)


def shares(mixed: Tensor, targets: Tensor) -> Tensor:
    return mixed.gather(1, targets[:, None])[:, 0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_blends_by_shares_of_the_beta_distribution(dtype: torch.dtype, alpha: float) -> None:
    images, targets = make_batch(OURS, dtype)
    mixed, soft = MixUp(alpha)(images, targets, make_draw(OURS))
    share = shares(soft, targets)
    each = share.view(-1, 1, 1, 1)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, each * images + (1 - each) * images.float().roll(1, 0), rtol=0, atol=1e-4)
    torch.testing.assert_close(soft, mixed_targets(share, targets))
    torch.testing.assert_close(soft.sum(1), torch.ones(OURS))
    # exclude the ends, because float32 rounds 2 % of Beta(0.2, 0.2) to 1
    grid = np.linspace(0.001, 0.999, 999)
    below = np.searchsorted(np.sort(share.numpy()), grid) / OURS
    assert np.abs(below - stats.beta.cdf(grid, alpha, alpha)).max() < 1.63 / OURS**0.5  # Kolmogorov-Smirnov, 1 %


@functools.cache
def torchvision_boxes(alpha: float) -> list[dict[str, Any]]:
    """Return the boxes that torchvision draws."""
    cutmix, images = v2.CutMix(alpha=alpha, num_classes=CLASSES), torch.empty(1, 3, HEIGHT, WIDTH)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [cutmix.make_params([images]) for _ in range(THEIRS)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_cutmix_pastes_boxes_distributed_as_torchvisions(dtype: torch.dtype, alpha: float) -> None:
    numbers = torch.arange(OURS) % 251  # no image equals its predecessor
    images = numbers.to(dtype).view(-1, 1, 1, 1).expand(-1, 3, HEIGHT, WIDTH)
    targets = torch.arange(OURS) % CLASSES
    mixed, soft = CutMix(alpha)(images, targets, make_draw(OURS))
    pasted = (mixed != images)[:, 0]
    assert mixed.dtype == dtype
    assert torch.equal(mixed, torch.where(pasted[:, None], images.roll(1, 0), images))
    assert torch.equal(pasted, pasted.any(2)[:, :, None] & pasted.any(1)[:, None, :])
    share = shares(soft, targets)
    torch.testing.assert_close(share, 1 - pasted.float().mean((1, 2)))
    torch.testing.assert_close(soft, mixed_targets(share, targets))

    params = torchvision_boxes(alpha)
    remaining = (HEIGHT * WIDTH * np.array([param["lam_adjusted"] for param in params])).round()
    assert stats.ks_2samp((~pasted).sum((1, 2)).numpy(), remaining).pvalue > 0.01
    often = np.zeros((HEIGHT, WIDTH))
    for left, top, right, bottom in (param["box"] for param in params):
        often[top:bottom, left:right] += 1 / THEIRS
    assert np.abs(pasted.float().mean(0).numpy() - often).max() < 4 * (0.25 / OURS + 0.25 / THEIRS) ** 0.5


@pytest.mark.parametrize("transform", ALL)
def test_one_seed_gives_one_batch_of_many_parameters(transform: BatchTransform) -> None:
    images, targets = make_batch(1)[0].repeat(64, 1, 1, 1), torch.arange(64) % CLASSES
    images[::2] = images[::2].flip(1)  # so that mixing changes them
    before = images.clone()
    first, again, other = (transform(images, targets, make_draw(64, seed)) for seed in (3, 3, 4))
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert len(first[0].flatten(1).unique(dim=0)) > 3
    assert torch.equal(images, before)


def test_progressive_resize_follows_the_epoch_and_does_not_change_images_of_full_size() -> None:
    images, targets = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8), torch.arange(4)
    transform = ProgressiveResize({1: 16, 3: 24, 5: 32})
    resized = [transform(images, targets, make_draw(4, epoch=epoch)) for epoch in range(7)]
    assert [batch.shape[-1] for batch, _ in resized] == [32, 16, 16, 24, 24, 32, 32]
    assert all(labels is targets for _, labels in resized)
    assert resized[6][0] is images
    expected = v2.functional.resize(images.float(), [16, 16], antialias=True)
    torch.testing.assert_close(resized[1][0], expected)
    assert resized[1][0].amax() > 1  # still on the scale of 0 to 255


@pytest.mark.parametrize("transform", [*ALL, ProgressiveResize({0: 4})])
def test_no_value_is_read_or_made_on_the_host(transform: BatchTransform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "_sample_dirichlet", lambda alphas, generator: alphas)  # has no meta kernel
    images, targets = make_batch(8, device="meta")
    draw = BatchContext(torch.Generator(), 0, targets, 0, CLASSES)  # meta tensors have no values to read or copy
    assert all(tensor.is_meta for tensor in transform(images, targets, draw))


@pytest.mark.cuda
@pytest.mark.parametrize("transform", [*ALL, ProgressiveResize({0: 4})])
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_transform_waits_for_a_gpu(transform: BatchTransform, dtype: torch.dtype) -> None:
    images, targets = make_batch(8, dtype, "cuda")
    draw = make_draw(8, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        mixed, soft = transform(*transform(images, targets, draw), draw)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert mixed.is_cuda
    assert soft.is_cuda


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (RandomCrop(1, 9), r"within that of the images, \(8, 11\), but got one that is 1 larger"),
        (Cutout(7), r"within that of the images, \(6, 9\), but got one that is 1 larger"),
    ],
)
def test_images_that_are_too_small_are_refused(transform: BatchTransform, message: str) -> None:
    with pytest.raises(DataError, match=f"^Expected a size {message}"):
        transform(*make_batch(2), make_draw(2))
