"""The facts that the callback Doctor collects, and that it changes nothing."""

import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torchvision.transforms import v2
from watching import NO_TRAINER, fit

from callbacks import Doctor
from callbacks.tools.facts import series_facts, val_facts
from callbacks.tools.probes import probe, val_step_facts, views
from datamodules import ProgressiveResize, SampleDataModule
from lightning_modules import ImageClassifier, Initializer
from lightning_modules.networks import LeNet
from lightning_modules.weights.initializers import initialize
from lightning_modules.weights.safe_load import load_safely
from project.__main__ import main
from project.doctor.messages import report

Make = Callable[..., ImageClassifier]


class Normed(LeNet):
    """A network with batch norm and dropout."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.pool1 = nn.Sequential(self.pool1, nn.BatchNorm2d(6), nn.Dropout(0.1))


def facts_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "doctor_facts.json").read_text())


def loaders(root: Path, **options: Any) -> tuple[Any, Any]:
    """Return the loaders of train and val of the sample."""
    data = SampleDataModule(root=str(root), num_workers=0, **options)
    data.setup("fit")
    return data.train_dataloader(), data.val_dataloader()


def examine(module: ImageClassifier, root: Path, **options: Any) -> dict[str, Any]:
    """Return what a module makes of images of the sample, without training."""
    trainer: Any = SimpleNamespace(current_epoch=0, callbacks=[])
    trainer.precision_plugin = SimpleNamespace(val_step_context=nullcontext)
    trainer.train_dataloader, trainer.val_dataloaders = loaders(root, **options)
    with torch.no_grad():
        return probe(trainer, module.eval(), 128)


def test_weights_are_the_same_to_the_bit_with_and_without_it(fast: list[str], tmp_path: Path) -> None:
    options = ["fit", *fast, f"--model.network={__name__}.Normed", "--callbacks=false", f"--runs_dir={tmp_path}"]
    runs = [main([*options, *more]) for more in (["--callbacks.doctor=true"], [])]
    assert load_safely(runs[0].run_dir / "checkpoints" / "last.ckpt")  # with the facts about batch norm
    first, second = (run.model.state_dict() for run in runs)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    facts = facts_of(runs[0].run_dir)
    assert {"plain_acc", "batch_stat_acc", "permuted_acc", "update_ratio", "first_loss_excess"} <= facts.keys()
    assert facts["epochs"] == facts["planned_epochs"] == 2
    assert json.loads((runs[0].run_dir / "doctor.json").read_text())["verdict"] in ("healthy", "too_early")


def test_a_resumed_run_has_the_facts_of_one_that_was_not_interrupted(make_classifier: Make, tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    fit(make_classifier(), tmp_path / "1", [keep, Doctor()], epochs=8, enable_checkpointing=True)
    fit(make_classifier(), tmp_path / "2", [Doctor()], epochs=8, ckpt_path=tmp_path / "epoch=6.ckpt")
    facts = facts_of(tmp_path / "1")
    assert facts["steps"] == 24
    assert facts_of(tmp_path / "2") == facts


def test_a_loss_that_becomes_nan_is_recorded_before_training_fails(fast: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["fit", *fast, "--model.optimizer.lr=1e6", f"--runs_dir={tmp_path}"])
    (file,) = tmp_path.rglob("doctor_facts.json")
    assert facts_of(file.parent)["nonfinite_steps"] == 1
    assert (file.parent / "doctor.json").is_file()


@pytest.mark.parametrize("recipe", ["metric", "autoencoder"])
def test_modules_other_than_classifiers_have_facts_of_their_steps_only(
    recipe: str, fast: list[str], tmp_path: Path
) -> None:
    options = ["--callbacks=false", "--callbacks.doctor=true", "--trainer.limit_train_batches=4"]
    run = main(["fit", "--config", f"configs/{recipe}.yaml", *fast[2:], *options, f"--runs_dir={tmp_path}"]).run_dir
    facts = facts_of(run)
    assert facts["grad_norm_median"] > 0
    assert not {"plain_acc", "permuted_acc", "prior_loss"} & facts.keys()


def test_hooks_that_undo_steps_are_found(make_classifier: Make, tmp_path: Path) -> None:
    def facts(**hooks: Callable[[ImageClassifier], Any]) -> list[float]:
        """Return the facts of a module with some hooks, which are called with it."""
        module = make_classifier(network=Normed)
        for name, hook in hooks.items():
            setattr(module, name, partial(hook, module))
        fit(module, tmp_path, [Doctor(images=0)])
        found = facts_of(tmp_path)
        return [found[name] for name in ("moved", "change_between_epochs", "norms_in_eval_mode") if name in found]

    moved, change, evaluating = facts()
    assert moved > 0
    assert change == evaluating == 0
    assert facts(on_after_backward=lambda module: module.zero_grad())[0] == 0
    assert facts(on_train_epoch_start=lambda module: module.network.conv1.reset_parameters())[1] > 1
    assert facts(on_train_epoch_start=lambda module: module.network.eval())[2] == 1


def test_a_validation_step_that_is_worse_than_the_network_is_found() -> None:
    targets = torch.arange(40) % 10
    network: Any = nn.Identity()
    images = 1.0 * nn.functional.one_hot(targets)
    assert val_step_facts(NO_TRAINER, network, (images, targets), targets)["val_step_z"] == 0
    assert val_step_facts(NO_TRAINER, network, (images, targets), targets * 0)["val_step_z"] == 6


def test_a_dead_channel_and_saturated_units_are_found(make_classifier: Make, sample_root: Path) -> None:
    module = make_classifier()
    nn.init.constant_(module.network.conv2.bias[:14], -1e3)
    facts = examine(module, sample_root)
    assert (facts["dead_layer"], facts["dead_share"]) == ("conv2", 0.875)
    assert facts["saturated_share"] == 0

    class Saturated(nn.Sequential):
        def __init__(self, num_classes: int) -> None:
            super().__init__(nn.Conv2d(3, 4, 32), nn.Sigmoid(), nn.Flatten(), nn.Linear(4, num_classes))
            nn.init.constant_(self[0].bias, 1e3)

    assert examine(make_classifier(network=Saturated), sample_root)["saturated_share"] == 1


def test_examining_changes_no_batch_norm_or_mode(make_classifier: Make, sample_root: Path) -> None:
    module = make_classifier(network=Normed)
    before = [tensor.clone() for tensor in module.state_dict().values()]
    facts = examine(module, sample_root)
    assert "batch_stat_acc" in facts
    assert all(map(torch.equal, before, module.state_dict().values()))
    assert not any(each.training for each in module.modules())
    assert module.network.pool1[1].track_running_stats


def test_images_are_seen_as_the_other_split_sees_them(sample_root: Path) -> None:
    same, inverted = (
        {name: next(view()) for name, view in views(*loaders(sample_root, eval_transforms=each), 20, 0).items()}
        for each in ([], [v2.RandomInvert(1.0)])
    )
    assert torch.equal(same["plain"][0], same["eval_transform"][0])
    for name, is_inverted in {"plain": 0, "eval_transform": 1, "val": 1, "train_transform_val": 0}.items():
        assert torch.equal(inverted[name][0], same[name][0]) != is_inverted
        assert torch.equal(inverted[name][1], same[name][1])


def test_images_of_a_size_that_only_training_has_are_not_compared(make_classifier: Make, sample_root: Path) -> None:
    module = make_classifier()
    assert "train_transform_val_acc" in examine(module, sample_root)
    smaller = [ProgressiveResize({0: 24, 9: 32})]
    assert "train_transform_val_acc" not in examine(module, sample_root, batch_transforms=smaller)


def test_norms_jumps_and_clipping_are_counted() -> None:
    losses, norms = [1.0] * 30 + [5.0] + [1.0] * 9 + [math.nan], [1.0] * 90 + [9.0] * 10
    facts = series_facts(losses, norms, clip=2.0)
    assert facts["loss_jump_share"] == pytest.approx(1 / 20)
    assert (facts["clipped_share"], facts["grad_norm_median"], facts["grad_norm_p99"]) == (0.1, 1.0, 9.0)
    assert series_facts([], [], None) == {}


def test_swapped_classes_and_rare_ones_are_found() -> None:
    pairs = [(0, 0)] * 2 + [(0, 1)] * 98 + [(1, 0)] * 97 + [(1, 1)] * 3 + [(2, 0)] * 5 + [(2, 2)] * 5
    targets, preds = torch.tensor(pairs).T
    train = torch.tensor([0] * 1000 + [1] * 900 + [2] * 50)
    facts = val_facts(targets, preds, ["a", "b", "c"], train)
    assert facts["swapped_pair"] == "a and b"
    assert facts["swapped_z"] == pytest.approx((98 + 97 - 2 - 3) / (200 * 2 * math.log(3)) ** 0.5)
    assert facts["val_acc"] == pytest.approx(10 / 210)
    assert facts["permuted_acc"] == pytest.approx(200 / 210)
    assert facts["rare_gap"] == pytest.approx(0.025 - 0.5)
    assert facts["probe_val_images"] == 210


def facts_of_counts(counts: list[list[int]], train: list[int] | None = None) -> dict[str, Any]:
    """Return the facts of a confusion matrix, given the number of training images of each class."""
    rows = torch.tensor(counts)
    targets, preds = (each.repeat_interleave(rows.flatten()) for each in torch.ones_like(rows).nonzero().T)
    trained = None if train is None else torch.arange(len(counts)).repeat_interleave(torch.tensor(train))
    return val_facts(targets, preds, [*map(str, range(len(counts)))], trained)


def test_classes_that_are_hard_or_not_predicted_are_not_called_swapped() -> None:
    similar = [[20, 15, 5], [15, 20, 5], [0, 0, 40]]
    collapsed = [[0, 40, 0], [0, 40, 0], [0, 40, 0]]
    assert facts_of_counts(similar)["swapped_z"] == facts_of_counts(collapsed)["swapped_z"] == 0


def test_what_a_network_makes_of_random_labels_is_not_above_chance() -> None:
    torch.manual_seed(0)
    clusters = 30 * torch.eye(10, dtype=torch.int64)[torch.tensor([0, 2, 1, 4, 3, 6, 5, 8, 9, 7])] + 1
    assert facts_of_counts(clusters.tolist())["chance_z"] < 1  # one of ten classes by chance
    assert facts_of_counts((20 * torch.eye(10).long() + 5).tolist())["chance_z"] > 5
    assert facts_of_counts([[30, 20], [20, 30]])["chance_z"] == pytest.approx(2.0)  # of two classes, by images


def test_labels_that_were_moved_from_one_class_to_another_are_found() -> None:
    counts = [[10, 30, 0, 0], [2, 38, 0, 0], [0, 0, 40, 0], [0, 0, 0, 40]]
    facts = facts_of_counts(counts, [40, 190, 120, 110])
    assert (facts["moved_pair"], facts["moved_share"]) == ("0 and 1", 0.75)
    assert facts["moved_z"] > 4
    assert facts_of_counts(counts, [40, 190, 40, 190])["moved_z"] == 0  # imbalance
    assert facts_of_counts(counts, [115, 118, 120, 107])["moved_z"] < 2.5


def test_the_remedy_for_dead_units_resets_weights_and_biases() -> None:
    alarm = report({"dead_at_start": 0.9}, {}, frozenset())["alarms"][0]
    rules = [Initializer(**rule) for rule in yaml.safe_load(alarm["remedy"]["value"])]
    network = LeNet(10)
    nn.init.constant_(network.conv1.bias, -100)
    initialize(network, rules)
    assert not network.conv1.bias.any()


def test_a_validation_with_one_class_gives_no_facts_of_classes() -> None:
    doctor: Any = Doctor()
    doctor.facts, doctor._preds = {"batch_stat_acc": 0.5}, [(torch.zeros(20).long(), torch.ones(20).long())]
    trainer, module = SimpleNamespace(train_dataloader=None, global_step=200), SimpleNamespace(class_names=["a", "b"])
    doctor.on_validation_epoch_end(trainer, module)
    assert doctor.facts == {"batch_stat_acc": 0.5}


def test_an_alarm_in_training_needs_two_judgements_in_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("callbacks.doctor.LogSnapshot", lambda trainer: SimpleNamespace(text=lambda *words: None))
    doctor, causes = Doctor(), iter(["a", "b", None, "b", "b", "b"])
    trainer: Any = SimpleNamespace(global_step=9)
    doctor.judge = lambda run: (cause := next(causes), [f"Alarm: {cause}"])
    assert [doctor._judge(trainer, tmp_path, False) for _ in range(5)] == [False] * 4 + [True]
    assert capsys.readouterr().out == "Alarm: b\n"
    assert doctor._judge(trainer, tmp_path, True)
    assert not capsys.readouterr().out
