from pathlib import Path

import pytest

from project.runs.command_line import config_files, expand_homes


def test_only_a_leading_tilde_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    given = ["fit", "--runs_dir=~/runs", "--run", "~/x", "~", "--data.root=~"]
    given += ["a~b", "--note=~=1", "~nobody_here/x", "./~"]
    assert expand_homes(given) == [
        *("fit", "--runs_dir=/home/me/runs", "--run", "/home/me/x", "/home/me", "--data.root=/home/me"),
        *("a~b", "--note=~=1", "~nobody_here/x", "./~"),
    ]


def test_configs_are_found_in_every_spelling(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).touch()
    args = ["fit", "--config", f"{tmp_path}/a", f"--config={tmp_path}/b", "-c", f"{tmp_path}/c"]
    args += ["--config", "{x: 1}" * 99]
    assert config_files(args) == [tmp_path / name for name in "abc"]
