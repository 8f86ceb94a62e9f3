import re
from pathlib import Path

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


OVERLAYS = {path.name: recipes_of(path) for path in CONFIGS.glob("*.yaml") if "# Overlay: " in path.read_text()}


def parse(capsys: pytest.CaptureFixture[str], *args: str) -> dict:
    """Return the complete config of a command line."""
    with pytest.raises(SystemExit) as stop:
        main(["fit", *args, "--print_config"])
    assert not stop.value.code
    return yaml.safe_load(capsys.readouterr().out)


def named(config: dict) -> dict[str, str]:
    """Return the class of each callback that is on."""
    return {name: entry["class_path"] for name, entry in config["callbacks"].items() if entry}


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_is_complete_and_has_all_suitable_callbacks(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = parse(capsys, f"--config=configs/{recipe}")
    names = {path.split(".")[-1] for path in named(config).values()}
    assert names >= {"Histograms", "ConvolutionKernels", "FeatureMaps"}
    assert config["data"]["class_path"] == "datamodules.CIFAR10DataModule"
    assert not {"class_names", "num_classes", "mean", "std", "image_size", "class_counts"} & set(
        config["model"]["init_args"]
    )
    model = getattr(lightning_modules, config["model"]["class_path"].split(".")[-1])
    if issubclass(model, lightning_modules.ImageClassifier):
        assert "ConfusionMatrix" in names
        augmentation = [
            transform["class_path"].split(".")[-1] for transform in config["data"]["init_args"]["batch_transforms"]
        ]
        assert augmentation[0] == "RandomCrop"
        assert augmentation[1] in ("RandomHorizontalFlip", "AlternatingFlip")


def test_main_recipe_has_every_callback(capsys: pytest.CaptureFixture[str]) -> None:
    config = parse(capsys, "--config=configs/resnet.yaml")
    names = set(named(config).values())
    monitor = "lightning.pytorch.callbacks.LearningRateMonitor"
    always_on = {"callbacks.TerminateOnNaN"}
    assert names | always_on >= {monitor, *(f"callbacks.{name}" for name in callbacks.__all__)}


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_contains_its_own_command(recipe: str) -> None:
    header = (CONFIGS / recipe).read_text().split("seed_everything")[0]
    assert f"#   python -m project fit --config configs/{recipe}" in header


@pytest.mark.parametrize(
    ("recipe", "overlay"), [(recipe, overlay) for overlay, recipes in OVERLAYS.items() for recipe in recipes]
)
def test_overlay_stacks_on_the_recipes_that_it_is_made_for(
    overlay: str, recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = parse(capsys, f"--config=configs/{recipe}")
    stacked = parse(capsys, f"--config=configs/{recipe}", f"--config=configs/{overlay}")
    assert named(stacked).items() >= named(alone).items()
    assert stacked != alone
    if overlay == "sample.yaml":
        assert stacked["model"] == alone["model"]
    assert stacked["data"]["class_path"].endswith(
        "SampleDataModule" if overlay == "sample.yaml" else "CIFAR10DataModule"
    )


def test_make_fit_trains_a_network_for_a_cpu_on_the_sample(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = re.findall(r"-m project fit (.+)", (CONFIGS.parent / "Makefile").read_text())
    config = parse(capsys, *line.split())
    assert config["model"]["init_args"]["network"]["init_args"]["depth"] == 20
    assert config["data"]["class_path"] == "datamodules.SampleDataModule"


def test_options_after_the_configs_override_them(capsys: pytest.CaptureFixture[str]) -> None:
    config = parse(
        capsys,
        "--config=configs/resnet.yaml",
        "--trainer.max_epochs=3",
        "--model.optimizer.lr=0.5",
        "--model.network.depth=34",
        "--data.batch_size=7",
        "--trainer.callbacks+=lightning.pytorch.callbacks.DeviceStatsMonitor",
    )
    assert config["trainer"]["max_epochs"] == 3
    assert (
        config["model"]["init_args"]["optimizer"]["init_args"] | {"lr": 0.5, "momentum": 0.9}
        == (config["model"]["init_args"]["optimizer"]["init_args"])
    )
    assert config["model"]["init_args"]["network"]["init_args"]["depth"] == 34
    assert config["data"]["init_args"]["batch_size"] == 7
    added = {"class_path": "lightning.pytorch.callbacks.DeviceStatsMonitor", "init_args": {"cpu_stats": None}}
    assert config["trainer"]["callbacks"] == [added]
    assert config["callbacks"] == parse(capsys, "--config=configs/resnet.yaml")["callbacks"]
