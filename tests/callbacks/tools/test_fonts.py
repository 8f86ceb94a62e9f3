import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fontTools.ttLib import TTFont
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import ImageDraw
from watching import fit

from callbacks import GradCAM, OcclusionSensitivity, PRROCCurves, TopMistakes, TrainingBatch
from callbacks.confusion_matrix import draw_confusion_matrix
from callbacks.pr_roc_curves import draw_roc
from callbacks.tools import fonts
from callbacks.tools.fonts import DEFAULT, cut_middle, drawable, file_of, font_of, names_in_figures, names_in_pictures
from callbacks.tools.pictures import rendered, sheet, shortened
from lightning_modules import ImageClassifier

Make = Callable[..., ImageClassifier]
CACHES = (fonts._files, fonts._file_with, fonts._report)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Return the list of installed fonts, which is empty; tests may add fonts before the first lookup."""
    files: list[str] = []
    monkeypatch.setattr(fonts, "findSystemFonts", lambda: files)
    for function in CACHES:
        function.cache_clear()
    yield files
    for function in CACHES:
        function.cache_clear()


@pytest.fixture
def with_cat(tmp_path: Path, installed: list[str]) -> str:
    """Install a file that is not a font, and then a font with a glyph of 猫; return its file."""
    (tmp_path / "a.ttf").write_bytes(b"no font")
    font = TTFont(DEFAULT)
    for table in font["cmap"].tables:
        table.cmap[ord("猫")] = "A"
    font.save(tmp_path / "cat.ttf")
    installed += [str(tmp_path / "a.ttf"), str(tmp_path / "cat.ttf")]
    return installed[1]


@pytest.mark.parametrize(
    "text", ["crème brûlée", "Übergröße", "плюс", "חתול", "قطة", "😀", "plain 98%…", "tab\tand\u200b"]
)
def test_matplotlibs_font_has_most_letters(text: str, installed: list[str]) -> None:
    assert file_of(text) == DEFAULT


def test_a_picture_shows_each_letter_as_itself(installed: list[str]) -> None:
    pictures = [sheet(torch.zeros(1, 3, 32, 32), [[letter]]) for letter in "éüñ□"]
    assert len({picture.numpy().tobytes() for picture in pictures}) == 4


def test_an_installed_font_is_used_for_glyphs_that_the_default_lacks(with_cat: str) -> None:
    assert names_in_pictures(["dog", "猫 é"]) == ["dog", "猫 é"]
    assert file_of("猫 é") == with_cat
    assert font_of("猫").path == with_cat
    labels = draw_confusion_matrix(np.eye(2, dtype=int), ["猫", "dog"]).axes[0].get_yticklabels()
    assert [Path(label.get_fontproperties().get_file() or DEFAULT).name for label in labels] == [
        "cat.ttf",
        "DejaVuSans.ttf",
    ]
    legend = draw_roc(torch.eye(2), torch.tensor([0, 1]), ["猫", "dog"], "").axes[0].get_legend()
    assert {text.get_fontproperties().get_file() for text in legend.get_texts()} == {with_cat, None}


@pytest.mark.parametrize("name", ["猫", "猫 with é", "\udcff"])
def test_a_class_without_glyphs_is_its_number_and_is_reported_once(
    name: str, installed: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        for _ in range(2):
            assert names_in_pictures(["dog", name, "cow"]) == ["dog", "1", "cow"]
    assert caplog.text.count("images show numbers instead (here 1)") == 1


def test_a_text_without_a_font_is_drawn_escaped(installed: list[str]) -> None:
    assert drawable("猫 98%") == r"\u732b 98%"
    expected = sheet(torch.zeros(1, 3, 32, 32), [[r"\u732b"]])
    assert torch.equal(sheet(torch.zeros(1, 3, 32, 32), [["猫"]]), expected)


def test_letters_with_separate_accents_are_drawn_as_one(installed: list[str]) -> None:
    assert names_in_pictures([unicodedata.normalize("NFD", "é")]) == ["é"]


def test_no_picture_has_a_letter_without_a_glyph(
    installed: list[str], make_classifier: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_long_names_do_not_squeeze_the_matrix(classes: int) -> None:
    widths = []
    for name in ("class {}", "a name of forty letters, {:03}, and its end"):
        figure = draw_confusion_matrix(np.eye(classes, dtype=int), [name.format(i) for i in range(classes)])
        FigureCanvasAgg(figure).draw()
        widths.append(figure.axes[0].get_window_extent().width)
    assert widths[1] > 0.95 * widths[0]


def test_long_names_are_cut_in_the_middle_and_stay_different() -> None:
    assert names_in_figures(["short", "one name of thirty-two letters, a"]) == ["short", "one name of … letters, a"]
    assert len(names_in_figures(["one name of thirty-two letters, a"])[0]) == 24
    same = names_in_figures([f"one name of {word} thirty-two letters" for word in ("no", "or")])
    assert same == ["0 one name of …two letters", "1 one name of …two letters"]
    assert names_in_figures(["$x$"]) == [r"\$x\$"]


def test_captions_are_cut_in_the_middle_to_keep_the_number_at_their_end() -> None:
    assert cut_middle("abcdef", 4) == "ab…ef"
    short = shortened("a class with a long name 98%", 96)
    assert short.endswith("98%")
    assert font_of(short).getlength(short) <= 96 < font_of(short).getlength("a class with a long name 98%")
    assert shortened("abc", 1) == "…"


def test_names_that_look_like_formulas_or_private_are_drawn() -> None:
    assert rendered(draw_confusion_matrix(np.eye(2, dtype=int), ["$x_1", "_y"])).shape[0] == 3
