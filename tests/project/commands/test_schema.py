import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, ValidationError
from jsonschema.exceptions import best_match

from project.runs.config import CONFIG, load_config, read_yaml

CONFIGS = Path(__file__).parents[3] / "configs"
SCHEMA = CONFIGS / "schema.json"
NETWORK = "model: {init_args: {network: {class_path: lightning_modules.networks.ResNet, init_args: {%s}}}}"
MISTAKES = {
    "trainer: {max_epoch: 3}": "$.trainer",
    "trainer: {max_epochs: many}": "$.trainer.max_epochs",
    "trainer: {precision: bf17}": "$.trainer.precision",
    "callbaks: false": "$",
    "callbacks: {histograms: {every_n_epoch: 3}}": "$.callbacks.histograms",
    "callbacks: {ema: {class_path: callbacks.EMA, init_args: {decay: slow}}}": "$.callbacks.ema.init_args.decay",
    "data: {class_path: datamodules.FolderDataModule, init_args: {resize: cut}}": "$.data.init_args.resize",
    "data: {class_path: datamodules.FolderDataModule, init_args: {rot: images}}": "$.data.init_args",
    "data: {init_args: {batch_size: many}}": "$.data.init_args.batch_size",
    "data: {init_args: {batch_transforms: [{class_path: datamodules.RandomCrop, init_args: {pading: 4}}]}}": (
        "$.data.init_args.batch_transforms[0].init_args"
    ),
    NETWORK % "dept: 18": "$.model.init_args.network.init_args",
    NETWORK % "depth: 19": "$.model.init_args.network.init_args.depth",
    "model: {init_args: {loss: {class_path: torch.nn.CrossEntropyLoss, init_args: {label_smoothing: a}}}}": (
        "$.model.init_args.loss.init_args.label_smoothing"
    ),
    "model: {init_args: {optimizer: {class_path: torch.optim.SGD, init_args: {momentun: 0.9}}}}": (
        "$.model.init_args.optimizer.init_args"
    ),
    "model: {init_args: {lr_scheduler: {class_path: lightning_modules.optim.OneCycle, init_args: {pct: 1}}}}": (
        "$.model.init_args.lr_scheduler.init_args"
    ),
    "model: {init_args: {param_groups: [{patern: fc3}]}}": "$.model.init_args.param_groups[0]",
    "model: {init_args: {param_groups: [{schedule: {class_path: lightning_modules.optim.Triangle, init_args: 1}}]}}": (
        "$.model.init_args.param_groups[0].schedule.init_args"
    ),
    "model: {class_path: lightning_modules.ImageClassifier, init_args: {mean: [0.5]}}": "$.model.init_args",
}
VALID = (
    "data: {class_path: mine.Data, init_args: {anything: 3}}",
    NETWORK.replace("lightning_modules", "mine") % "anything: 3",
    "model: {class_path: lightning_modules.ImageClassifier, init_args: {network: lightning_modules.networks.LeNet}}",
    "{callbacks: {histograms: false, kernels: true, mine: mine.Callback, other: {class_path: mine.Other}}}",
    "{callbacks: {histograms: {every_n_epochs: 3}, ema: false}}",
    "{trainer: {logger+: {class_path: mine.Logger}}, data: {init_args: {batch_transforms+: datamodules.MixUp}}}",
    "trainer.max_epochs: 3",
)


def mistake_in(config: Any) -> ValidationError | None:
    return best_match(Draft7Validator(json.loads(SCHEMA.read_text())).iter_errors(config))


def test_schema_is_valid_and_small() -> None:
    Draft7Validator.check_schema(json.loads(SCHEMA.read_text()))
    assert SCHEMA.stat().st_size < 300_000


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_config_names_the_schema_and_matches_it(config: Path) -> None:
    assert config.read_text().startswith(f"# yaml-language-server: $schema={SCHEMA.name}\n")
    assert mistake_in(read_yaml(config.read_text())) is None


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_found_at_its_place(text: str) -> None:
    mistake = mistake_in(read_yaml(text))
    assert mistake is not None
    assert mistake.json_path == MISTAKES[text]


@pytest.mark.parametrize("text", VALID)
def test_own_classes_and_short_forms_are_allowed(text: str) -> None:
    assert mistake_in(read_yaml(text)) is None


def test_the_config_of_a_run_matches(finished_run: Path) -> None:
    assert (finished_run / CONFIG).is_file()
    assert mistake_in(load_config(finished_run)) is None


@pytest.mark.slow
def test_schema_is_not_stale() -> None:
    command = [sys.executable, "-m", "project", "schema"]
    printed = subprocess.run(command, cwd=CONFIGS.parent, capture_output=True, text=True, check=True).stdout
    own = ("callbacks.", "datamodules.", "lightning_modules.")  # others change with the versions of libraries
    known, current = (
        {name: each for name, each in schema["$defs"].items() if name.startswith(own)}
        for schema in (json.loads(SCHEMA.read_text()), json.loads(printed))
    )
    assert known == current, "configs/schema.json is stale. Run: python -m project schema > configs/schema.json"
