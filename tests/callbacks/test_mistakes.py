import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2.functional import pil_to_tensor
from watching import events, fit

from callbacks import TopMistakes
from callbacks.tools.layers import denormalized
from lightning_modules import ImageClassifier
from project.__main__ import main

Make = Callable[..., ImageClassifier]


class Fixed(nn.Module):
    """A network whose logits depend only on the first pixel."""

    def __init__(self, num_classes: int, always: int | None = None) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.num_classes = num_classes

    def forward(self, images: Tensor) -> Tensor:
        sure = self.scale * images[:, 0, 0, 0].abs()
        return sure[:, None] * torch.eye(self.num_classes)[4]


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_most_confident_mistakes_of_all_batches_come_first(make_classifier: Make, tmp_path: Path) -> None:
    trainer = fit(make_classifier(network=Fixed), tmp_path, [TopMistakes(count=5)], epochs=1)
    images, targets = trainer.val_dataloaders.dataset.tensors
    logits = trainer.lightning_module(images).detach()
    sure = logits.softmax(1).amax(1)
    wrong = targets != 4
    order = [i for i in sure.argsort(descending=True).tolist() if wrong[i]][:5]
    mistakes = rows(tmp_path / "mistakes_val.csv")
    names = trainer.lightning_module.class_names
    assert [row["true"] for row in mistakes] == [names[targets[i]] for i in order]
    assert {row["predicted"] for row in mistakes} == {names[4]}
    assert [float(row["confidence"]) for row in mistakes] == pytest.approx([sure[i].item() for i in order], abs=1e-6)
    losses = nn.functional.cross_entropy(logits, targets, reduction="none")
    assert [float(row["loss"]) for row in mistakes] == pytest.approx([losses[i].item() for i in order], abs=1e-5)
    assert {row["path"] for row in mistakes} == {""}  # this loader has no files
    sheet = pil_to_tensor(Image.open(tmp_path / "pictures/mistakes/val/epoch_0001.png"))[:, 6:102]
    for i, left in zip(order[:4], range(6, 414, 102), strict=True):  # four in a row, each pixel three times as large
        expected = denormalized(trainer.lightning_module, images[[i]])[0].clamp(0, 1) * 255
        assert torch.equal(sheet[:, ::3, left : left + 96 : 3], expected.round().byte())
    histograms = {
        name: events(tmp_path).Histograms(f"confidence/{name}")[0].histogram_value for name in ("right", "wrong")
    }
    assert (histograms["right"].num, histograms["wrong"].num) == ((~wrong).sum(), wrong.sum())


def test_network_without_a_mistake_has_an_empty_list(
    make_classifier: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = make_classifier()
    step = module._evaluate
    # the images do not affect the predictions
    monkeypatch.setattr(module, "_evaluate", lambda *args, **kwargs: step(*args, **kwargs) | {"preds": args[1][1]})
    fit(module, tmp_path, [TopMistakes()], epochs=1)
    assert rows(tmp_path / "mistakes_val.csv") == []
    tags = events(tmp_path).Tags()
    assert tags["images"] == []
    assert tags["histograms"] == ["confidence/right"]


def test_files_of_mistakes_are_those_of_the_true_class(finished_run: Path) -> None:
    mistakes = rows(finished_run / "mistakes_val.csv")
    assert mistakes
    for row in mistakes:
        assert Path(row["path"]).is_file()
        assert Path(row["path"]).parent.name == row["true"] != row["predicted"]


def test_mistakes_of_a_test_are_in_its_directory(finished_run: Path) -> None:
    cli = main(["test", "--run", str(finished_run)])
    mistakes = rows(cli.output_dir / "mistakes_test.csv")
    listed = {line.rsplit(maxsplit=1)[0] for line in (cli.datamodule.root / "test.txt").read_text().splitlines()}
    assert mistakes
    assert {str(Path(row["path"]).relative_to(cli.datamodule.root)) for row in mistakes} <= listed
    assert "mistakes/test" in events(cli.output_dir).Tags()["images"]
