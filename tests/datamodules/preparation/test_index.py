import time
from pathlib import Path

import pytest

from datamodules import DataError
from datamodules.preparation.index import check_entries, count_labels, read_index, write_index


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    entries = [("images/a  cat/0_1.png", 0), ("images/名/9_2.png", 9), ("/abs.png", 999_999), ("../3 4", 5)]
    write_index(tmp_path / "train.txt", iter(entries))
    lines = ["images/a  cat/0_1.png 0\n", "images/名/9_2.png 9\n", "/abs.png 999999\n", "../3 4 5\n"]
    assert (tmp_path / "train.txt").read_bytes().decode() == "".join(lines)
    assert read_index(tmp_path / "train.txt") == entries
    assert [path.name for path in tmp_path.iterdir()] == ["train.txt"]


@pytest.mark.parametrize(
    ("content", "entries"),
    [
        (b"", []),
        (b"\xef\xbb\xbf", []),
        (b"\n \n\t\r\n", []),
        (b"a.png 0", [("a.png", 0)]),
        (b"\xef\xbb\xbfa.png 0\r\n\r\nb.png 1\r\n", [("a.png", 0), ("b.png", 1)]),
        (b"a.png 0\n\xef\xbb\xbfb.png 1\n\xef\xbb\xbf", [("a.png", 0), ("b.png", 1)]),
        (b"  a b.png \t 7 \t \r\n", [("a b.png", 7)]),
        (b"a.png\t0\n", [("a.png", 0)]),
        (b"# a.png 0\n", [("# a.png", 0)]),
        (b"C:\\images\\a b\\0_1.png 0\r\n", [("C:/images/a b/0_1.png", 0)]),
        (b"a.png 007\n", [("a.png", 7)]),
        ("a\u3000\u00a0.png 1\n".encode(), [("a\u3000\u00a0.png", 1)]),
    ],
)
def test_what_editors_and_windows_make_of_a_file_is_understood(
    tmp_path: Path, content: bytes, entries: list[tuple[str, int]]
) -> None:
    (tmp_path / "train.txt").write_bytes(content)
    assert read_index(tmp_path / "train.txt") == entries


@pytest.mark.parametrize(
    "line",
    [
        *("a.png", "a.png cat", "a.png -1", "a.png +1", " 3", "3", "a.png 1.5", "a.png 1e3", "a.png 1_0", "a.png,3"),
        *("a.png 1000000", "a.png " + "9" * 5000, "a.png 3 #", "a.png ３", "a.png ²", "a.png\0 3", "a.png 3\0"),  # noqa: RUF001
        *("a\tb.png 3", "a.png 0\rb.png 3", "\x1b[2Ja.png 3"),
    ],
)
def test_line_without_path_or_label_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "train.txt").write_text(f"a.png 0\n{line}\n", encoding="utf-8", newline="\n")
    expected = r"train\.txt:2: Expected `relative/path\.png label` with a label from 0 to 999999, but got '.*'\. Cor"
    with pytest.raises(DataError, match=expected) as error:
        read_index(tmp_path / "train.txt")
    assert len(str(error.value)) < 600
    assert str(error.value).isprintable()


@pytest.mark.parametrize(("content", "byte"), [(b"\xff\xfea\0.\0p\0", "0xff"), (b"b.png 0\ncaf\xe9.png 1\n", "0xe9")])
@pytest.mark.parametrize("before", [b"", b"\n\n\n\n", b"\xef\xbb\xbf", b"\xef\xbb\xbfa.png 0\r\n"])
def test_bytes_that_are_no_utf8_are_named_with_their_line(
    tmp_path: Path, content: bytes, byte: str, before: bytes
) -> None:
    (tmp_path / "train.txt").write_bytes(before + content)
    number = (before + content).split(bytes([int(byte, 16)]))[0].count(b"\n") + 1
    with pytest.raises(DataError, match=rf"train\.txt:{number}: Expected UTF-8, but got the byte {byte}\. Save"):
        read_index(tmp_path / "train.txt")


@pytest.mark.parametrize("line", ["a.png 0", "a.png 7", "  a.png\t0\r"])
def test_path_that_is_listed_twice_is_named_with_both_lines(tmp_path: Path, line: str) -> None:
    (tmp_path / "train.txt").write_text(f"\na.png 0\nb.png 0\n{line}\n", newline="\n")
    label = line.split()[1]
    expected = (
        rf"train\.txt:4: Expected each path once, but got 'a\.png' with label {label}, and in line 2 with label 0\."
    )
    with pytest.raises(DataError, match=expected):
        read_index(tmp_path / "train.txt")


@pytest.mark.parametrize("path", ["train.txt", "."])
def test_index_file_that_cannot_be_read_is_named(tmp_path: Path, path: str) -> None:
    with pytest.raises(DataError, match=r"Expected an index file, but .* cannot be read: .+\. Restore it"):
        read_index(tmp_path / path)


@pytest.mark.parametrize(
    ("file", "label"),
    [
        *(
            (file, 1)
            for file in ("a.png ", " a.png", "a\n.png", "a 1\nb.png", "a\r.png", "a.png\r", "a\t.png", "a\0.png")
        ),
        *((file, 1) for file in ("", " ", "a\\b.png", "\ufeffa.png", "a.png\u3000", "caf\udce9.png", "\ud800.png")),
        *(("a.png", label) for label in (-1, 10**6, True, 1.0, "x", None)),
        (Path("a.png"), 1),
    ],
)
def test_entry_that_would_be_read_back_otherwise_is_refused(tmp_path: Path, file: str, label: int) -> None:
    with pytest.raises(DataError, match=r"Expected .* but got ") as error:
        check_entries(tmp_path / "train.txt", [(file, label), ("last.png", 0)])
    assert "\n" not in str(error.value)


def test_path_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="each path once"):
        check_entries(tmp_path / "train.txt", [("a.png", 1), ("a.png", 1)])


def test_reading_is_fast(tmp_path: Path) -> None:
    entries = [(f"images/train/airplane/{i % 10}_{i}.png", i % 10) for i in range(60_000)]
    write_index(tmp_path / "train.txt", entries)
    start = time.process_time()
    assert read_index(tmp_path / "train.txt") == entries
    assert time.process_time() - start < 0.5  # 0.05 on an idle core


def test_label_without_a_class_is_named() -> None:
    assert count_labels([("a.png", 1), ("b.png", 1)], ["cat", "dog"]) == {"cat": 0, "dog": 2}
    for label in (2, -1):
        with pytest.raises(DataError, match=rf"0 to 1, but got {label} for b\.png"):
            count_labels([("a.png", 1), ("b.png", label)], ["cat", "dog"])
