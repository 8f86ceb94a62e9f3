from collections import Counter
from pathlib import Path

import pytest

from datamodules import DataError
from datamodules.preparation.tables import divide_tables, find_tables

HEADER = "path,label\n"
THIRDS = (1 / 3, 1 / 3, 1 / 3)


def make(root: Path, files: dict[str, str | bytes | None]) -> Path:
    """Write CSV files, and create the images, whose content is None."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content.encode() if isinstance(content, str) else content or b"")
    return root


def divided(root: Path, **options: object) -> tuple[list[str], dict[str, str]]:
    """Return the names of the classes, and the name of each image's class."""
    entries, names = divide_tables(find_tables(root), root, THIRDS, 0, **options)
    return names, {file: names[label] for part in entries.values() for file, label in part}


IMAGES = dict.fromkeys(["a.png", "b.png", "c.png", "d.png"])
ANIMALS = {"a.png": "cat", "b.png": "dog", "c.png": "cat", "d.png": "dog"}
ROWS = "a.png,cat\nb.png,dog\nc.png,cat\nd.png,dog\n"


@pytest.mark.parametrize(
    "content",
    [
        "path,label\n" + ROWS,
        "\ufeffpath,label\r\n" + ROWS.replace("\n", "\r\n"),
        "path;label\n" + ROWS.replace(",", ";"),
        "Image_ID\tBreed\n" + ROWS.replace(",", "\t"),
        "first,class\n" + ROWS,
        '"file name", "label"\n"a.png", "cat"\n"b.png", "dog"\n\n"c.png", "cat"\n"d.png", "dog"',
        ",split,filename,label\n" + "".join(f"{i},x,{line}\n" for i, line in enumerate(ROWS.split())),
        ROWS,  # no header
        "cat,a.png\ndog,b.png\ncat,c.png\ndog,d.png\n",
        "path,label\n" + ROWS.replace(".png", ""),  # ids
        "path,label\n" + ROWS.replace("a.png", "./a.png").replace("b.png", ".\\b.png"),
        "path,label\n" + ROWS + "d.png,dog\n",
    ],
)
def test_any_dialect_with_or_without_a_header_is_read(tmp_path: Path, content: str) -> None:
    assert divided(make(tmp_path, IMAGES | {"labels.csv": content})) == (["cat", "dog"], ANIMALS)


def test_quoted_fields_may_hold_separators_quotes_and_line_ends(tmp_path: Path) -> None:
    root = make(tmp_path, {"a, b.png": None, 'c"d.png': None, "e.png": None})
    make(root, {"labels.csv": 'path,label\n"a, b.png","big, red"\n"c""d.png","a ""pet"""\ne.png,"big,\nred"\n'})
    names, labels = divided(root)
    assert names == ['a "pet"', "big, red"]
    assert labels == {"a, b.png": "big, red", 'c"d.png': 'a "pet"', "e.png": "big, red"}


@pytest.mark.parametrize(
    ("labels", "names"),
    [("1 2 10", ["1", "2", "10"]), ("0 1 2", ["0", "1", "2"]), ("1.0 2.0 10.0", ["1", "2", "10"]), ("-1 1 5", None),
     ("1 2 x", None), ("02 1 10", ["1", "2", "10"])],
)  # fmt: skip
def test_integers_are_names_in_the_order_of_numbers(tmp_path: Path, labels: str, names: list[str] | None) -> None:
    rows = zip(IMAGES, labels.split(), strict=False)
    root = make(
        tmp_path, IMAGES | {"labels.csv": "path,label\n" + "".join(f"{file},{label}\n" for file, label in rows)}
    )
    assert divided(root)[0] == (names or labels.split())


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        ("dog cat dog", "dog\ncat\n", ["dog", "cat", "dog"]),
        ("1 2 1", "\ufeffdog\r\ncat\r\n", ["dog", "cat", "dog"]),
        ("0 1 0", "dog\ncat\n", ["dog", "cat", "dog"]),
        ("0 2 1", "2\n1\n0\n", ["0", "2", "1"]),
    ],
)
def test_classes_txt_orders_the_classes_and_names_their_numbers(
    tmp_path: Path, labels: str, classes: str, expected: list[str]
) -> None:
    rows = "".join(f"{file},{label}\n" for file, label in zip(IMAGES, labels.split(), strict=False))
    root = make(tmp_path, IMAGES | {"labels.csv": f"path,label\n{rows}", "classes.txt": classes})
    names, labels_of = divided(root)
    assert names == classes.lstrip("\ufeff").split()
    assert list(dict(sorted(labels_of.items())).values()) == expected


@pytest.mark.parametrize(
    ("images", "path", "file"),
    [
        (["images/x/1.png", "images/y/1.png"], "x/1.png", "images/x/1.png"),
        (["x/1.png", "images/x/1.png"], "x/1.png", "x/1.png"),
        (["train_images/1.png", "test_images/1.png"], "1", "train_images/1.png"),
        (["images/1.b.jpg"], "1.b", "images/1.b.jpg"),
        (["test/1.png"], "test/1.png", "test/1.png"),
        (["test/1.png"], "1", None),
        (["images/11.png"], "1.png", None),
        (["a/1.png", "b/1.png"], "1", "may be a/1.png, b/1.png"),
        (["1.png", "1.jpg"], "1", "may be 1.jpg, 1.png"),
    ],
)
def test_an_image_is_found_by_the_end_of_its_path_but_not_in_the_folder_of_another_stage(
    tmp_path: Path, images: list[str], path: str, file: str | None
) -> None:
    root = make(tmp_path, dict.fromkeys([*images, "other.png"]) | {"train.csv": f"id,label\n{path},a\nother,b\n"})
    if file in images:
        assert divided(root)[1] == {file: "a", "other.png": "b"}
    else:
        with pytest.raises(DataError, match=file or rf"1 of 2 images of .*train\.csv are missing: {path}\."):
            divided(root)


def test_absolute_paths_and_those_out_of_the_folder_are_used(tmp_path: Path) -> None:
    root = make(tmp_path, {"data/a.png": None, "other/b.png": None}) / "data"
    make(root, {"labels.csv": f"path,label\n{root}/a.png,x\n../other/b.png,y\n"})
    assert divided(root)[1] == {"a.png": "x", (tmp_path / "other/b.png").as_posix(): "y"}


def test_csv_files_of_stages_are_the_split_and_a_missing_one_is_split_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"{i}.png" for i in range(30)]
    lines = [f"{name},{i % 3}\n" for i, name in enumerate(names)]
    files = {"Training_labels.csv": "".join(lines[:20]), "valid.tsv": "".join(lines[20:]).replace(",", "\t")}
    root = make(
        tmp_path / "archive", dict.fromkeys(names) | files | {"test.csv": "id\nx\n", "sample_submission.csv": ""}
    )
    tables = find_tables(tmp_path)
    assert tables == {"train": root / "Training_labels.csv", "val": root / "valid.tsv", "test": root / "test.csv"}
    with caplog.at_level("INFO"):
        entries, _ = divide_tables(tables, tmp_path, (0.8, 0.1, 0.1), 0)
    assert {stage: len(part) for stage, part in entries.items()} == {"train": 18, "val": 10, "test": 2}
    assert "test.csv has no labels, so it is not used. `predict` classifies its images." in caplog.text


def test_one_csv_is_split_by_class_whatever_the_order_of_its_lines(tmp_path: Path) -> None:
    lines = [f"{i}.png,{'ab'[i % 2]}\n" for i in range(60)]
    root = make(tmp_path, dict.fromkeys([f"{i}.png" for i in range(60)]))
    splits = []
    for order in (lines, lines[::-1]):
        make(root, {"labels.csv": "path,label\n" + "".join(order)})
        splits.append(divide_tables(find_tables(root), root, (0.8, 0.1, 0.1), 666)[0])
    assert splits[0] == splits[1]
    counts = {stage: Counter(label for _, label in part) for stage, part in splits[0].items()}
    assert counts == {"train": {0: 24, 1: 24}, "val": {0: 3, 1: 3}, "test": {0: 3, 1: 3}}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"labels.csv": ""}, r"path and a label in each line of .*labels\.csv, but it is empty"),
        ({"labels.csv": HEADER + "a.png,x\nb.png,\n"}, r"labels\.csv:3: .* but got 'b\.png' and ''\. Add it"),
        ({"labels.csv": HEADER + "a.png,x\nb.png,y,z\n"}, r"labels\.csv:3: .* got 3 columns, not 2 as in the"),
        ({"labels.csv": HEADER + 'a.png,"x\nb.png,y\n'}, r"labels\.csv:3: Expected CSV, but unexpected end of data"),
        ({"labels.csv": b"path,label\na.png,caf\xe9\n"}, r"labels\.csv: Expected UTF-8, but got the byte 0xe9"),
        ({"labels.csv": (HEADER + "a.png,x\n").encode("utf-16")}, r"Expected UTF-8, but got the byte 0xff"),
        ({"labels.csv": HEADER + "a.png,x\na,y\n"}, r"labels\.csv:3: Expected one label .* a\.png is 'x' and 'y'"),
        ({"labels.csv": HEADER + "".join(f"{i},x\n" for i in range(9))},
         r"but 9 of 9 images of .*labels\.csv are missing: 0, 1, 2, 3, 4, \.\.\.\. Correct them, or exclude .* skip"),
        ({"labels.csv": "id,file,label\n1,a.png,x\n"},
         r"columns one of paths and one of labels .* got id, file, label\. .*--data\.csv_columns '\[file, species\]'"),
        ({"labels.csv": "a.png\nb.png\n"}, r"but got a\.png\. Correct it, or name the two columns"),
        ({"train.csv": HEADER + "a.png,x\nb.png,y\n", "val.csv": HEADER + "c.png,z\n"},
         r"labels of .*train\.csv in the CSV file of val, but got z\. Correct them"),
        ({"train.csv": HEADER + "a.png,x\nb.png,y\n", "test.csv": HEADER + "a.png,y\n"},
         r"one label for a\.png, but got x and y"),
        ({"train.csv": HEADER, "labels.csv": HEADER}, r"one CSV file .* got .*labels\.csv and .*train\.csv"),
        ({"labels.csv": HEADER + "a.png,x\nb.png,y\n", "classes.txt": "x\nz\n"}, r"names in .*classes\.txt.* got y"),
        ({"labels.csv": HEADER + "a.png,1\nb.png,2\n", "classes.txt": "x\ny\nz\n"},
         r"positions from 0 or from 1, .* got 1, 2"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_csv_file_is_named(
    tmp_path: Path, files: dict[str, str | bytes | None], message: str
) -> None:
    with pytest.raises(DataError, match=message) as error:
        divided(make(tmp_path, IMAGES | files))
    assert str(error.value).isprintable()


def test_columns_may_be_named(tmp_path: Path) -> None:
    root = make(
        tmp_path, IMAGES | {"labels.csv": "id,file,label,kind\n" + "".join(f"0,{x}.png,0,k{x}\n" for x in "abcd")}
    )
    assert divided(root, columns=("file", "kind"))[0] == ["ka", "kb", "kc", "kd"]
    with pytest.raises(DataError, match=r"Expected columns file and genus in .* but got id, file, label, kind\."):
        divided(root, columns=("file", "genus"))


def test_missing_images_may_be_excluded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = make(tmp_path, IMAGES | {"labels.csv": HEADER + ROWS + "e.png,dog\na.png,cat\n"})
    with caplog.at_level("INFO"):
        assert divided(root, skip=True)[1] == ANIMALS
    assert "1 of 6 images of" in caplog.text
    assert "1 lines of" in caplog.text
