import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ImageDraw
from watching import fit

from callbacks import GradCAM, OcclusionSensitivity, PRROCCurves, TopMistakes, TrainingBatch
from callbacks.confusion_matrix import draw_confusion_matrix
from callbacks.pr_roc_curves import draw_roc
from callbacks.tools import warn_once
from callbacks.tools.fonts import font, names_in_figures, names_in_pictures, shortened
from callbacks.tools.pictures import rendered, sheet
from lightning_modules import ImageClassifier

Make = Callable[..., ImageClassifier]


@pytest.fixture(autouse=True)
def _warn_again() -> None:
    warn_once.cache_clear()


@pytest.mark.parametrize("name", ["crème brûlée", "Übergröße", "плюс", "חתול", "قطة", "😀", "plain 98%…"])
def test_matplotlibs_font_has_most_letters(name: str) -> None:
    assert names_in_pictures([name]) == [name]


def test_a_picture_shows_each_letter_as_itself() -> None:
    pictures = [sheet(torch.zeros(1, 3, 32, 32), [[letter]]) for letter in "éüñ□"]
    assert len({picture.numpy().tobytes() for picture in pictures}) == 4


@pytest.mark.parametrize("name", ["猫", "猫 with é", "\udcff"])
def test_a_class_with_letters_that_the_font_lacks_is_its_number(name: str) -> None:
    with pytest.warns(UserWarning, match="Images show the numbers of 1 classes") as warned:
        assert names_in_pictures(["dog", name, "cow"]) == names_in_pictures(["dog", name, "cow"]) == ["dog", "1", "cow"]
    assert len(warned) == 1


def test_letters_with_separate_accents_are_drawn_as_one() -> None:
    assert names_in_pictures([unicodedata.normalize("NFD", "é")]) == ["é"]


@pytest.mark.filterwarnings("ignore:Images show the numbers")
def test_no_picture_has_a_letter_without_a_glyph(
    make_classifier: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    draw_text = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw,
        "text",
        lambda self, xy, text, *args: drawn.append(text) or draw_text(self, xy, text, *args),
    )
    watchers = [TrainingBatch(), TopMistakes(), GradCAM(images=10), OcclusionSensitivity(images=10)]
    names = [f"猫{number}" for number in range(10)]
    fit(make_classifier(class_names=names), tmp_path, [*watchers, PRROCCurves(every_n_epochs=1)], epochs=1)
    assert len(drawn) > 40
    assert not [text for text in drawn if "猫" in text]
    assert "猫3" in (tmp_path / "mistakes_val.csv").read_text(encoding="utf-8")  # a file may contain any letter


@pytest.mark.parametrize("classes", [2, 40])
def test_long_names_do_not_squeeze_the_matrix(classes: int) -> None:
    short, long = (
        draw_confusion_matrix(np.eye(classes, dtype=int), [name.format(i) for i in range(classes)])
        for name in ("class {}", "a name of forty letters, {:03}, and its end")
    )
    assert 50 < long.shape[2] - short.shape[2] == long.shape[1] - short.shape[1] < 180


def test_long_names_are_cut_in_the_middle_and_stay_different() -> None:
    names = ["short", "one name of no thirty-two letters", "one name of or thirty-two letters"]
    assert names_in_figures(names) == ["short", "1 one name of…wo letters", "2 one name of…wo letters"]
    assert names_in_figures(["$x$"]) == [r"\$x\$"]
    short = shortened("a class with a long name 98%", 96)
    assert short.endswith("98%")
    assert font().getlength(short) <= 96 < font().getlength("a class with a long name 98%")
    assert shortened("abc", 1) == "…"


def test_names_that_look_like_formulas_or_private_are_drawn() -> None:
    assert draw_confusion_matrix(np.eye(2, dtype=int), ["$x_1", "_y"]).shape[0] == 3
    probabilities, targets = torch.eye(4)[:, :2], torch.tensor([0, 1, 0, 1])
    assert rendered(draw_roc(probabilities, targets, ["$x_1", "_y"], "epoch 1")).shape[0] == 3
