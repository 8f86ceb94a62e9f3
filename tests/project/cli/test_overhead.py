from pathlib import Path

import torch
import yaml
from lightning.pytorch import LightningModule
from lightning.pytorch.profilers import SimpleProfiler
from torch import nn

from project.__main__ import main
from project.cli.overhead import NoProfiler, set_hook_names_directly


def test_profiler_of_the_user_profiles(fast: list[str], tmp_path: Path) -> None:
    options = ["--trainer.profiler=simple", "--trainer.fast_dev_run=true", "--callbacks=false"]
    cli = main(["fit", *fast, *options, f"--runs_dir={tmp_path}"])
    assert type(cli.trainer.profiler) is SimpleProfiler
    (config,) = tmp_path.rglob("config.yaml")
    assert yaml.safe_load(config.read_text())["trainer"]["profiler"] == "simple"


def test_no_profiler_and_the_names_of_hooks_cost_nothing_and_change_nothing() -> None:
    profiler = NoProfiler()
    assert profiler.profile("a") is profiler.profile("b")
    set_hook_names_directly()
    module = LightningModule()
    module._current_fx_name = "training_step"
    module.layer, module.weight, module.other = nn.Linear(1, 1), nn.Parameter(torch.zeros(1)), 3
    assert vars(module)["_current_fx_name"] == "training_step"
    assert [name for name, _ in module.named_parameters()] == ["weight", "layer.weight", "layer.bias"]
