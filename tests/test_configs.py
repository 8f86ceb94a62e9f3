import io
import re
from contextlib import redirect_stdout
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

import callbacks
import lightning_modules
from project.__main__ import main

CONFIGS = Path(__file__).parents[1] / "configs"
RECIPES = sorted(
    path.name
    for path in CONFIGS.glob("*.yaml")
    if path.name != "callbacks.yaml" and "# Overlay: " not in path.read_text()
)


def recipes_of(overlay: Path) -> list[str]:
    """Return the recipes that an overlay is for: the one in its command if it is named after it, otherwise all."""
    recipe = re.findall(r"--config configs/(\w+)\.yaml --config", overlay.read_text())[0]
    return [f"{recipe}.yaml"] if overlay.stem.startswith(recipe) else RECIPES


OVERLAYS = {path.name: recipes_of(path) for path in sorted(CONFIGS.glob("*.yaml")) if "# Overlay: " in path.read_text()}


def parse(*args: str) -> dict[str, Any]:
    """Return the complete config of a command line."""
    with redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit) as stop:
        main(["fit", *args, "--print_config"])
    assert not stop.value.code
    return yaml.safe_load(printed.getvalue())


recipe_of = cache(lambda name: parse(f"--config=configs/{name}"))


def named(config: dict) -> dict[str, str]:
    """Return the class of each callback that is on."""
    return {name: entry["class_path"] for name, entry in config["callbacks"].items() if entry}


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_is_complete_and_has_all_suitable_callbacks(recipe: str) -> None:
    header = (CONFIGS / recipe).read_text().split("seed_everything")[0]
    assert f"#   python -m project fit --config configs/{recipe}" in header
    config = recipe_of(recipe)
    names = {path.split(".")[-1] for path in named(config).values()}
    assert names >= {"Histograms", "ConvolutionKernels", "FeatureMaps"}
    is_folder = recipe == "finetune.yaml"
    assert config["data"]["class_path"] == f"datamodules.{'Folder' if is_folder else 'CIFAR10'}DataModule"
    linked = {"class_names", "num_classes", "mean", "std", "image_size", "class_counts"}
    assert not linked & set(config["model"]["init_args"])
    module, _, name = config["model"]["class_path"].rpartition(".")
    if issubclass(getattr(import_module(module), name), lightning_modules.ImageClassifier):
        assert "ConfusionMatrix" in names
        if is_folder:
            return
        first, second, *_ = (entry["class_path"] for entry in config["data"]["init_args"]["batch_transforms"])
        assert first.endswith(".RandomCrop")
        assert second.endswith((".RandomHorizontalFlip", ".AlternatingFlip"))


def test_main_recipe_has_every_callback() -> None:
    names = set(named(recipe_of("resnet.yaml")).values())
    monitor = "lightning.pytorch.callbacks.LearningRateMonitor"
    always_on = {"callbacks.TerminateOnNaN"}
    assert names | always_on >= {monitor, *(f"callbacks.{name}" for name in callbacks.__all__)}


@pytest.mark.parametrize("recipe", RECIPES)
def test_overlays_stack_on_the_recipes_that_they_are_made_for(recipe: str) -> None:
    alone = recipe_of(recipe)
    overlays = [overlay for overlay, recipes in OVERLAYS.items() if recipe in recipes and overlay != "debug.yaml"]
    stacked = parse(f"--config=configs/{recipe}", *(f"--config=configs/{overlay}" for overlay in overlays))
    assert named(stacked).items() >= named(alone).items()
    assert stacked["data"]["class_path"] == "datamodules.SampleDataModule"
    assert (stacked["model"] == alone["model"]) == ([recipe] not in OVERLAYS.values())
    assert stacked["trainer"]["strategy"]["class_path"].endswith("ModelParallelStrategy")


def test_a_network_that_can_learn_memorises_the_batch_of_the_debug_overlay(tmp_path: Path) -> None:
    configs = [f"--config={CONFIGS / name}.yaml" for name in ("lenet", "sample", "debug")]
    options = [f"--data.root={tmp_path}/data", f"--runs_dir={tmp_path}/runs", "--trainer.enable_progress_bar=false"]
    fit = main(["fit", *configs, *options])
    assert fit.trainer.callback_metrics["train/acc"] == 1
    assert parse(*configs)["runs_dir"] == "runs_debug"
    assert not (fit.run_dir / "pictures").exists()


def test_profile_is_written_to_a_file_of_the_run(fast: list[str], tmp_path: Path) -> None:
    options = ["--callbacks=false", f"--runs_dir={tmp_path}", "--trainer.limit_train_batches=1"]
    run = main(["fit", *fast, f"--config={CONFIGS}/profile.yaml", *options]).run_dir
    assert "run_training_batch" in (run / "fit-profile.txt").read_text()
