"""Mistakes with their images."""

import base64
import io
import re
from pathlib import Path

from PIL import Image
from report_runs import CLASSES, write_run

from project.report.read import read_run
from project.report.tables import mistakes


def test_each_mistake_is_an_image_with_both_classes_and_the_confidence(tmp_path: Path) -> None:
    run = write_run(tmp_path / "full/2026-11-21_10-00-00", classes=("dog", "cat", "bird"))
    page = mistakes(read_run(run), "val")
    captions = re.findall(r"<figcaption>(true.*?)</figcaption>", page)
    assert captions[:2] == [
        "true: cat, predicted: dog 99\N{NO-BREAK SPACE}%",
        "true: cat, predicted: dog 98\N{NO-BREAK SPACE}%",
    ]
    contents = [base64.b64decode(data) for data in re.findall(r"base64,([^\"]+)", page)]
    assert len(contents) == len(captions) == 30
    column = Image.open(run / "mistakes_val.png")
    for i, content in enumerate(contents):
        assert Image.open(io.BytesIO(content)).tobytes() == column.crop((0, 8 * i, 8, 8 * i + 8)).tobytes()
    opened, folded = page.split("<details>")
    assert opened.count("<img") == 12
    assert "val/cat/29.png" in folded


def test_mistakes_without_images_are_a_table(tmp_path: Path) -> None:
    run = write_run(tmp_path / "full/2026-11-21_10-00-00", classes=CLASSES)
    (run / "mistakes_val.png").unlink()
    page = mistakes(read_run(run), "val")
    assert "<img" not in page
    assert "val/a &lt;b&gt;&amp;&quot;$x$/0.png" in page
    assert mistakes(read_run(run), "test") == ""
