from pathlib import Path

import pytest

from datamodules import DataError
from datamodules.index import count_labels, read_index, write_index


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    entries = [("images/a cat/0_1.png", 0), ("images/名/9_2.png", 9)]
    write_index(tmp_path / "train.txt", entries)
    assert (tmp_path / "train.txt").read_text(encoding="utf-8") == "images/a cat/0_1.png 0\nimages/名/9_2.png 9\n"
    assert read_index(tmp_path / "train.txt") == entries
    assert [path.name for path in tmp_path.iterdir()] == ["train.txt"]


def test_windows_line_ends_byte_order_mark_and_blank_lines_are_understood(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_bytes(b"\xef\xbb\xbfa.png 0\r\n\r\nb.png 1\r\n")
    assert read_index(tmp_path / "train.txt") == [("a.png", 0), ("b.png", 1)]


@pytest.mark.parametrize("line", ["a.png", "a.png cat", "a.png -1", " 3", "a.png 1.5"])
def test_line_without_path_or_label_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "train.txt").write_text(f"a.png 0\n{line}\n")
    with pytest.raises(DataError, match=r"train\.txt:2: expected `relative/path\.png label`"):
        read_index(tmp_path / "train.txt")


def test_label_without_a_class_is_named() -> None:
    assert count_labels([("a.png", 1), ("b.png", 1)], ["cat", "dog"]) == {"cat": 0, "dog": 2}
    with pytest.raises(DataError, match=r"0 to 1, but got 2 for b\.png"):
        count_labels([("a.png", 1), ("b.png", 2)], ["cat", "dog"])
