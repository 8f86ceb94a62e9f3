from pathlib import Path
from typing import Any

import pytest

from project.__main__ import main
from project.cli.parser import Parser, load, text_to_save
from project.errors import RunError, UsageError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config={}/twice.yaml"], "{}/twice.yaml has 'model' in lines 1 and 3"),
        (["--model.optimizer={}/sgd.yaml"], "{}/sgd.yaml has 'init_args.lr' in lines 3 and 4"),
        (["--config={}/nested.yaml"], "{}/sgd.yaml has 'init_args.lr' in lines 3 and 4"),
        (["--trainer={{max_epochs: 1, max_epochs: 2}}"], "the command line has 'max_epochs' in lines 1 and 1"),
    ],
)
def test_a_duplicate_key_is_one_line(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {
        "twice.yaml": "model:\n  init_args: {no_decay: true}\nmodel:\n  init_args: {layer_decay: 0.5}\n",
        "sgd.yaml": "class_path: torch.optim.SGD\ninit_args:\n  lr: 1\n  lr: 2\n",
        "nested.yaml": "model: {init_args: {optimizer: sgd.yaml}}",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config=configs/lenet.yaml", *(option.format(tmp_path) for option in options)])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message.format(tmp_path) in err


def test_a_mapping_without_values_is_a_string() -> None:
    assert load("{a}") == "{a}"
    assert load("{a: 1}") == {"a": 1}
    with pytest.raises(RunError):
        load("{a: 1, a: 1}")


class Unsaved:
    """An object without an import path."""


def test_values_that_cannot_be_saved_are_left_out_if_they_are_defaults_and_an_error_otherwise() -> None:
    parser = Parser()
    parser.add_argument("--a.name", type=str)
    parser.add_argument("--a.any", type=Any, default=Unsaved())
    config = parser.parse_args(["--a.name=x"])
    assert text_to_save(parser, "test", config) == "a:\n  name: x\n"
    config.a.any = Unsaved()
    with pytest.raises(UsageError, match=r"but a\.any is <.*Unsaved object"):
        text_to_save(parser, "test", config)
