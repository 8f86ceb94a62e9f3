import os
from pathlib import Path

import pytest
from PIL import Image

from datamodules.reading.files import find_files


def save(path: Path, size: tuple[int, int] = (40, 30), colour: str = "red") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return str(path)


def test_folders_are_searched_without_hidden_and_other_files(tmp_path: Path) -> None:
    files = [save(tmp_path / name) for name in ("a b.png", "b/10.JPG", "b/9.png", "c/d/e.webp")]
    for name in (".hidden.png", ".thumbs/a.png", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "c/loop").symlink_to(tmp_path)
    found = find_files([str(tmp_path)])
    assert found.files == files
    assert found.passed_over == [str(tmp_path / "b/notes.txt")]
    assert not found.problems


def test_folders_of_other_programs_are_skipped_at_any_depth(tmp_path: Path) -> None:
    file = save(tmp_path / "a/0.png")
    for name in ("@eaDir", "a/@eaDir/0.png", "__MACOSX/a", "#recycle", "a/$Recycle.Bin", "lost+found", "@__thumb"):
        save(tmp_path / name / "1.png")
    assert find_files([str(tmp_path)]).files == [file]


def test_globs_are_expanded_and_each_file_comes_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a1.png", "a[1].png", "b.png", "deep/er/c.png"):
        save(tmp_path / name)
    assert find_files(["a*.png", "a1.png", "."]).files == ["a1.png", "a[1].png", "./a1.png", "./a[1].png", "./b.png",
                                                           "./deep/er/c.png"]  # fmt: skip
    assert find_files(["a[1].png"]).files == ["a[1].png"]  # a file of this name takes precedence over a pattern
    assert find_files(["**/c.png"]).files == ["deep/er/c.png"]
    assert find_files(["deep*"]).files == ["deep/er/c.png"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_files(["~/b*.png"]).files == [str(tmp_path / "b.png")]


def test_paths_without_a_file_are_reported(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")  # opening it would block
    (tmp_path / "link.png").symlink_to("gone.png")
    names = [*(str(tmp_path / name) for name in ("pipe.png", "link.png", "gone.png", "*.jpg")), "a\0b.png"]
    found = find_files(names)
    assert found.files == []
    reasons = [*["is not a file, or a broken link"] * 2, "is missing", "matches no file", "is missing"]
    assert found.problems == dict(zip(names, reasons, strict=True))
    within = find_files([str(tmp_path)])
    assert set(within.problems) == set(names[:2])
