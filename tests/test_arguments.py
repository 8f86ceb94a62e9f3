from pathlib import Path

from project.arguments import config_files


def test_configs_are_found_in_every_spelling(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).touch()
    args = [
        "fit",
        "--config",
        f"{tmp_path}/a",
        f"--config={tmp_path}/b",
        "-c",
        f"{tmp_path}/c",
        "--config",
        "{x: 1}" * 99,
    ]
    assert config_files(args) == [tmp_path / name for name in "abc"]
