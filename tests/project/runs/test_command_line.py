from pathlib import Path

import pytest

from project.runs.command_line import classes_first, config_files, expand_homes


def test_only_a_leading_tilde_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    given = ["fit", "--runs_dir=~/runs", "--run", "~/x", "~", "--data.root=~"]
    given += ["a~b", "--note=~=1", "~nobody_here/x", "./~"]
    assert expand_homes(given) == [
        *("fit", "--runs_dir=/home/me/runs", "--run", "/home/me/x", "/home/me", "--data.root=/home/me"),
        *("a~b", "--note=~=1", "~nobody_here/x", "./~"),
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("fit --a.b.lr 1 --a.b C", "fit --a.b C --a.b.lr 1"),
        ("fit --a.b.lr=1 --x 2 --a.b=C", "fit --a.b=C --a.b.lr=1 --x 2"),
        (
            "fit --a.init_args.b.init_args.lr 1 --a.b.class_path C",
            "fit --a.b.class_path C --a.init_args.b.init_args.lr 1",
        ),
        ("fit --a.b.lr 1 --a.b C --a A", "fit --a A --a.b C --a.b.lr 1"),
        ("fit --a.b.lr 1 --config x --a.b C", "fit --a.b.lr 1 --config x --a.b C"),
        ("fit --a.b.lr 1 --a.b {class_path: C}", "fit --a.b.lr 1 --a.b {class_path: C}"),
        ("fit --a.bc 1 --a.b C --a+=B --a.x 1", "fit --a.bc 1 --a.b C --a+=B --a.x 1"),
    ],
)
def test_a_class_precedes_its_arguments(given: str, expected: str) -> None:
    assert classes_first(given.split(" ")) == expected.split(" ")


def test_configs_are_found_in_every_spelling(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).touch()
    args = ["fit", "--config", f"{tmp_path}/a", f"--config={tmp_path}/b", "-c", f"{tmp_path}/c"]
    args += ["--config", "{x: 1}" * 99]
    assert config_files(args) == [tmp_path / name for name in "abc"]
