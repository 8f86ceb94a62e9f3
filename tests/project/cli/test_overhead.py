import platform
import resource
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.profilers import SimpleProfiler
from torch import nn

from project.__main__ import main
from project.cli.overhead import NoProfiler, call_overridden_hooks, inspect_once, keep_freed_memory, reduce_overhead


def test_profiler_of_the_user_profiles(fast: list[str], tmp_path: Path) -> None:
    options = ["--trainer.profiler=simple", "--trainer.fast_dev_run=true", "--callbacks=false"]
    cli = main(["fit", *fast, *options, f"--runs_dir={tmp_path}"])
    assert type(cli.trainer.profiler) is SimpleProfiler
    (config,) = tmp_path.rglob("config.yaml")
    assert yaml.safe_load(config.read_text())["trainer"]["profiler"] == "simple"


def test_no_profiler_and_the_names_of_hooks_cost_nothing_and_change_nothing() -> None:
    profiler = NoProfiler()
    assert profiler.profile("a") is profiler.profile("b")
    reduce_overhead()
    module = LightningModule()
    module._current_fx_name = "training_step"
    module.layer, module.weight, module.other = nn.Linear(1, 1), nn.Parameter(torch.zeros(1)), 3
    assert vars(module)["_current_fx_name"] == "training_step"
    assert [name for name, _ in module.named_parameters()] == ["weight", "layer.weight", "layer.bias"]


def test_hooks_that_a_callback_overrides_are_called_in_their_order() -> None:
    calls: list[tuple[str, int, str]] = []

    class Named(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            calls.append(("method", batch_idx, pl_module._current_fx_name))

    class Inherits(Named):
        pass

    attribute = LambdaCallback(on_train_batch_end=lambda *args: calls.append(("attribute", args[-1], "")))
    module, profiler = LightningModule(), NoProfiler()
    trainer = SimpleNamespace(lightning_module=module, profiler=profiler)
    trainer.callbacks = [Callback(), Named(), attribute, Inherits()]
    reduce_overhead()
    reduce_overhead()
    call_overridden_hooks(trainer, "on_train_batch_end", None, None, 7)
    name = "on_train_batch_end"
    assert calls == [("method", 7, name), ("attribute", 7, ""), ("method", 7, name)]
    assert module._current_fx_name is None


def test_a_training_step_may_have_a_batch_or_also_its_number() -> None:
    class One(LightningModule):
        def training_step(self, batch) -> None:
            pass

    class Two(LightningModule):
        def training_step(self, batch, number) -> None:
            pass

    for _ in range(2):
        assert not inspect_once(One().training_step, "batch_idx", min_args=2)
        assert inspect_once(Two().training_step, "batch_idx", min_args=2)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the options of glibc")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    def step() -> int:
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        activations = [torch.zeros(6_000_000) for _ in range(4)]  # of 24 MB
        del activations
        return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before

    keep_freed_memory()
    assert min(step() for _ in range(5)) < 100  # of 23,000 pages
