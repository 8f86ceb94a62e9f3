import time
from pathlib import Path

import pytest

from datamodules import DataError
from datamodules.preparation.index import check_names, count_labels, read_index, text_of


def test_what_is_written_is_read_back_in_no_time(tmp_path: Path) -> None:
    entries = [("images/a  cat/0_1.png", 0), ("images/名/9_2.png", 9), ("/abs.png", 999_999), ("../3 4", 5)]
    check_names(entries)
    (tmp_path / "train.txt").write_bytes(text_of(iter(entries)))
    lines = ["images/a  cat/0_1.png 0\n", "images/名/9_2.png 9\n", "/abs.png 999999\n", "../3 4 5\n"]
    assert (tmp_path / "train.txt").read_bytes().decode() == "".join(lines)
    assert read_index(tmp_path / "train.txt") == entries
    many = [(f"images/train/airplane/{i % 10}_{i}.png", i % 10) for i in range(60_000)]
    (tmp_path / "train.txt").write_bytes(text_of(many))
    start = time.process_time()
    assert read_index(tmp_path / "train.txt") == many
    assert time.process_time() - start < 0.6  # 0.1 on an idle core


@pytest.mark.parametrize(
    ("content", "entries"),
    [
        (b"", []),
        (b"\xef\xbb\xbf", []),
        (b"\n \n\t\r\n", []),
        (b"\xef\xbb\xbfa.png 0\r\n\r\nb.png 1\r\n", [("a.png", 0), ("b.png", 1)]),
        (b"a.png 0\n\xef\xbb\xbfb.png 1\n\xef\xbb\xbf", [("a.png", 0), ("b.png", 1)]),
        (b"  a b.png \t 7 \t \r\n", [("a b.png", 7)]),
        (b"# a.png\t007", [("# a.png", 7)]),
        (b"C:\\images\\a b\\0_1.png 0\r\n", [("C:/images/a b/0_1.png", 0)]),
        ("a\u3000\u00a0.png 1\n".encode(), [("a\u3000\u00a0.png", 1)]),
    ],
)
def test_what_editors_and_windows_make_of_a_file_is_understood(
    tmp_path: Path, content: bytes, entries: list[tuple[str, int]]
) -> None:
    (tmp_path / "train.txt").write_bytes(content)
    assert read_index(tmp_path / "train.txt") == entries


WRONG = r"Expected `relative/path\.png label` with a label from 0 to 999999, but got '.*'\. Cor"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        *((f"a.png 0\n{line}\n".encode(), f":2: {WRONG}") for line in (
            *("a.png", "a.png cat", "a.png -1", "a.png +1", " 3", "3", "a.png 1.5", "a.png 1_0", "a.png,3"),
            *("a.png 1000000", "a.png " + "9" * 5000, "a.png 3 #", "a\tb.png 3", "a.png 0\rb.png 3", "a.png\0 3"),
        )),
        (b"\xef\xbb\xbf\xff\xfea\0.\0p\0", ":1: Expected UTF-8, but got the byte 0xff. Save"),
        (b"\n\nb.png 0\r\ncaf\xe9.png 1\n", ":4: Expected UTF-8, but got the byte 0xe9. Save"),
        (b"\na.png 0\nb.png 0\n  a.png\t7\r\n", r":4: Expected each path once, but 'a\.png' is also in line 2\."),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "train.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"train\.txt{message}") as error:
        read_index(tmp_path / "train.txt")
    assert len(str(error.value)) < 600
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "file",
    [
        *("a.png ", " a.png", "a 1\nb.png", "a\r.png", "a\t.png", "a\0.png", "", " ", "a\\b.png", "\ufeffa.png"),
        *("a.png\u3000", "caf\udce9.png", "\ud800.png"),
    ],
)
def test_a_name_that_would_be_read_back_otherwise_is_refused(file: str) -> None:
    with pytest.raises(DataError, match=r"Expected file names .* but got .*Rename") as error:
        check_names([("first.png", 0), (file, 1)])
    assert "\n" not in str(error.value)


def test_label_without_a_class_is_named() -> None:
    assert count_labels([("a.png", 1), ("b.png", 1)], ["cat", "dog"]) == {"cat": 0, "dog": 2}
    for label in (2, -1):
        with pytest.raises(DataError, match=rf"0 to 1, but got {label} for b\.png"):
            count_labels([("a.png", 1), ("b.png", label)], ["cat", "dog"])
