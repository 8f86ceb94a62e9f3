from pathlib import Path

import pytest

from atomic_files import write_atomically


def fail(path: Path) -> None:
    with write_atomically(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_only_when_it_is_complete(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with write_atomically(path, durable=durable) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
        assert partial.parent == tmp_path  # a rename between file systems would copy
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"table.csv": "new"}


def test_an_error_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        fail(path)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"table.csv": "old"}


def test_a_temporary_file_of_a_killed_process_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "table.csv.partial").write_text("half of a longer file")
    with write_atomically(tmp_path / "table.csv") as partial:
        partial.write_text("new")
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"table.csv": "new"}
