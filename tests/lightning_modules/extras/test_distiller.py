from collections.abc import Callable
from functools import partial
from math import exp, log
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from training import measured

from lightning_modules import ImageClassifier
from lightning_modules.extras.distiller import Distiller
from project.__main__ import main


class Says(nn.Module):
    """A network that returns the same logits for each image."""

    def __init__(self, num_classes: int, logits: tuple[float, ...]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits[:num_classes]))

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), -1)


class Reads(nn.Module):
    """A network that returns the values of the first pixel of each image."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(num_classes))

    def forward(self, images: Tensor) -> Tensor:
        return images[:, :, 0, 0] * self.scale


DATA = {"class_names": ["a", "b", "c"], "mean": [0.5] * 3, "std": [0.25] * 3, "image_size": 32}
OPTIMIZER = partial(torch.optim.SGD, lr=0.1)


@pytest.fixture
def make() -> Callable[..., Distiller]:
    def make(teacher: nn.Module, alpha: float = 0.9, loss: nn.Module | None = None, **data: list[float]) -> Distiller:
        # the student's probabilities are 1/4 1/4 1/2 at temperature 1
        student = partial(Says, logits=(0.0, 0.0, log(2)))
        module = Distiller(
            network=student, optimizer=OPTIMIZER, teacher="none", temperature=2.0, alpha=alpha, loss=loss, **DATA
        )
        module._teacher = [ImageClassifier(network=lambda classes: teacher, optimizer=OPTIMIZER, **(DATA | data))]
        return module

    return make


def loss_of(module: Distiller) -> float:
    with patch.object(module, "log"):
        return module.training_step((torch.zeros(2, 3, 32, 32), torch.tensor([2, 0])), 0).item()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_loss_is_the_weighted_sum_computed_by_hand(make: Callable[..., Distiller], reduction: str) -> None:
    # at temperature 2, the teacher's logits ln 16, 0, 0 are ln 4, 0, 0: its probabilities are 4/6 1/6 1/6; those of the
    # student are 0, 0, ln sqrt 2
    student = [part / (2 + 2**0.5) for part in (1, 1, 2**0.5)]
    divergence = sum(share * log(share / own) for share, own in zip((4 / 6, 1 / 6, 1 / 6), student, strict=True))
    cross_entropy = (-log(1 / 2) - log(1 / 4)) / 2
    module = make(Says(3, (log(16), 0.0, 0.0)), loss=nn.CrossEntropyLoss(reduction=reduction))
    assert loss_of(module) == pytest.approx(0.1 * cross_entropy + 0.9 * 2**2 * divergence, rel=1e-5)


def test_classes_of_the_teacher_are_mapped_by_name(make: Callable[..., Distiller]) -> None:
    answers = {"a": log(16), "b": 0.0, "c": log(4)}
    same = loss_of(make(Says(3, tuple(answers.values()))))
    other = make(Says(3, (answers["c"], answers["a"], answers["b"])), class_names=["c", "a", "b"])
    assert loss_of(other) == pytest.approx(same, rel=1e-6)


def test_teacher_gets_images_with_its_own_normalisation(make: Callable[..., Distiller]) -> None:
    module = make(Reads(3), alpha=1.0, mean=[0.5, 0.25, 0.5], std=[0.25, 0.25, 0.25])
    # normalised zeros are 0.5, which the teacher normalises to 0, 1, 0: e to half of its logits is 1, e^(1/2), 1
    teacher = [part / (2 + exp(0.5)) for part in (1, exp(0.5), 1)]
    student = [part / (2 + 2**0.5) for part in (1, 1, 2**0.5)]
    divergence = sum(share * log(share / own) for share, own in zip(teacher, student, strict=True))
    assert loss_of(module) == pytest.approx(2**2 * divergence, rel=1e-4)


def student(teacher: Path, **changes: list[str]) -> Distiller:
    data: dict[str, Any] = DATA | changes
    network = partial(Says, logits=(0.0,) * len(data["class_names"]))
    return Distiller(network=network, optimizer=OPTIMIZER, teacher=str(teacher), **data)


@pytest.mark.parametrize("exists", [False, True])
def test_teacher_that_is_no_checkpoint_is_refused(exists: bool, tmp_path: Path) -> None:
    file = tmp_path / "teacher.ckpt"
    if exists:
        torch.save({"weight": torch.zeros(1)}, file)
    with pytest.raises(MisconfigurationException, match=r"Expected a checkpoint.*--model\.teacher.*teacher\.ckpt"):
        student(file).load_teacher()


def test_teacher_of_other_classes_is_refused(finished_run: Path) -> None:
    teacher = finished_run / "checkpoints" / "best.ckpt"
    with pytest.raises(MisconfigurationException, match=r"image_size 32, 3 channels, and other classes: 2, x\."):
        student(teacher, class_names=[*"987654310", "x"]).load_teacher()
    with pytest.raises(MisconfigurationException, match=r"image_size 16 and 3 channels, .* image_size 32, .*: none\."):
        student(teacher, class_names=[*"9876543210"], image_size=16).load_teacher()


def test_command_trains_a_student_whose_checkpoint_needs_no_teacher(
    fast: list[str], finished_run: Path, tmp_path: Path
) -> None:
    teacher = tmp_path / "teacher.ckpt"
    teacher.write_bytes((finished_run / "checkpoints" / "best.ckpt").read_bytes())
    options = ["--config=configs/distill.yaml", *fast[2:], "--callbacks=false", "--trainer.limit_train_batches=4"]
    options += [f"--model.teacher={teacher}", "--model.temperature=3", "--model.alpha=0.5", f"--runs_dir={tmp_path}"]
    run = main(["fit", *options]).run_dir
    teacher.unlink()
    trained = Distiller.load_from_checkpoint(run / "checkpoints" / "best.ckpt", weights_only=True).eval()
    assert (trained.temperature, trained.alpha) == (3, 0.5)
    plain = ImageClassifier.load_from_checkpoint(finished_run / "checkpoints" / "best.ckpt", weights_only=True)
    assert trained.state_dict().keys() == plain.state_dict().keys()
    main(["test", "--run", str(run), "--trainer.enable_progress_bar=false"])
    assert "test/acc" in measured(next(run.glob("test/*")))


class Touch:
    """Create a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = str(file)

    def __reduce__(self) -> Any:
        return open, (self.file, "w")


@pytest.mark.parametrize("file", ["no.ckpt", "evil.ckpt"])
def test_teacher_that_cannot_be_loaded_is_reported_in_one_line_and_leaves_no_run(
    file: str, fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": Touch(tmp_path / "trace")}, tmp_path / "evil.ckpt")
    options = [f"--runs_dir={tmp_path}/runs", f"--model.teacher={tmp_path}/{file}"]
    with pytest.raises(SystemExit, match="2"):
        main(["fit", "--config=configs/distill.yaml", *fast[2:], *options])
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"--model.teacher, but {tmp_path}/{file}" in err
    assert not (tmp_path / "trace").exists()
    assert not list((tmp_path / "runs").glob("*/*"))
