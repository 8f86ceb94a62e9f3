"""Callbacks for a whole run: graph, hyperparameters, curves, throughput."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import Tensor
from watching import events, fit

from callbacks import Hyperparameters, LearningCurves, NetworkGraph, Throughput
from callbacks.training_batch import labels
from lightning_modules import ImageClassifier
from lightning_modules.networks import LeNet

Make = Callable[..., ImageClassifier]


def test_graph_has_the_layers_of_the_network(make_classifier: Make, tmp_path: Path) -> None:
    fit(make_classifier(), tmp_path, [NetworkGraph()], epochs=1)
    assert any("LeNet" in node.name for node in events(tmp_path).Graph().node)


def test_network_that_cannot_be_traced_is_reported(make_classifier: Make, tmp_path: Path) -> None:
    class Untraceable(LeNet):
        def forward(self, images: Tensor) -> Tensor:
            if torch.jit.is_tracing():
                raise ValueError("not to be traced")
            return super().forward(images)

    with pytest.warns(UserWarning, match="NetworkGraph could not draw: ValueError: not to be traced"):
        trainer = fit(make_classifier(network=Untraceable), tmp_path, [NetworkGraph()], epochs=1)
    assert trainer.global_step == 3


def test_hyperparameters_are_logged_with_the_results(make_classifier: Make, tmp_path: Path) -> None:
    trainer = fit(make_classifier(), tmp_path, [Hyperparameters()])
    reader = events(tmp_path)
    (final,) = reader.Scalars("hp/val/loss")
    assert final.value == pytest.approx(trainer.callback_metrics["val/loss"].item())
    contents = [
        reader.SummaryMetadata(f"_hparams_/{name}").plugin_data.content for name in ("session_start_info", "experiment")
    ]
    session, experiment = map(HParamsPluginData.FromString, contents)
    settings = session.session_start_info.hparams
    assert (settings["network"].string_value, settings["optimizer"].string_value) == ("LeNet", "SGD")
    assert (settings["lr"].number_value, settings["parameters"].number_value) == (0.1, 62006)
    assert {info.name.tag for info in experiment.experiment.metric_infos} == {"hp/val/loss", "hp/epochs"}


def test_best_value_of_the_checkpoint_is_the_runs(finished_run: Path) -> None:
    reader = events(finished_run)
    best = max(event.value for event in reader.Scalars("val/acc"))
    assert reader.Scalars("hp/val/acc")[0].value == pytest.approx(best)
    text = reader.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert (finished_run / "config.yaml").read_text() in text


def charts(folder: Path) -> dict[str, list[str]]:
    """Return the tags of each chart in the layout of the custom scalars."""
    (layout,) = events(folder).Tensors("custom_scalars__config__")
    (category,) = Layout.FromString(layout.tensor_proto.string_val[0]).category
    return {chart.title: list(chart.multiline.tag) for chart in category.chart}


@pytest.mark.parametrize("every", [1, 2])
def test_training_and_validation_share_a_chart_of_one_event_file(
    make_classifier: Make, tmp_path: Path, every: int
) -> None:
    fit(make_classifier(), tmp_path, [LearningCurves()], epochs=4, check_val_every_n_epoch=every)
    assert charts(tmp_path) == {name: [f"^train/{name}$", f"^val/{name}$"] for name in ("loss", "acc")}
    assert len(list(tmp_path.rglob("*tfevents*"))) == 1


def test_throughput_is_images_over_seconds_of_training(make_classifier: Make, tmp_path: Path) -> None:
    fit(make_classifier(), tmp_path, [Throughput()])
    reader = events(tmp_path)
    columns = (reader.Scalars(f"time/{name}") for name in ("images_per_second", "train_seconds"))
    for speed, seconds in zip(*columns, strict=True):
        assert speed.value * seconds.value == pytest.approx(24, rel=1e-4)
    assert all(event.value > 0 for event in reader.Scalars("time/val_seconds"))


def test_throughput_skips_the_rest_of_a_resumed_epoch(make_classifier: Make, tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=2, save_top_k=-1)
    fit(make_classifier(), tmp_path / "1", [keep], epochs=1, enable_checkpointing=True)
    fit(make_classifier(), tmp_path / "2", [Throughput()], ckpt_path=tmp_path / "step=2.ckpt")
    (seconds,) = events(tmp_path / "2").Scalars("time/train_seconds")
    assert seconds.value < 600  # only the second epoch, which is complete


def test_mixed_images_are_labelled_with_their_two_largest_shares() -> None:
    assert labels(torch.tensor(1), ["a", "b", "c"]) == ["b"]
    assert labels(torch.tensor([0.1, 0.7, 0.2]), ["a", "b", "c"]) == ["b 70%", "c 20%"]
    assert labels(torch.tensor([0.0, 1.0, 0.0]), ["a", "b", "c"]) == ["b 100%"]
