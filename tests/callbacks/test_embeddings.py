from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from watching import NO_TRAINER, fit

import callbacks.embeddings
from callbacks import Embeddings
from lightning_modules import ImageClassifier
from lightning_modules.networks import LeNet, NiN

Make = Callable[..., ImageClassifier]


def table(file: Path) -> list[list[str]]:
    return [line.split("\t") for line in file.read_text().splitlines()]


def test_vectors_names_and_thumbnails_of_all_epochs_belong_together(make_classifier: Make, tmp_path: Path) -> None:
    module = make_classifier(class_names=["white space\tand a tab", *(f"class {i}" for i in range(1, 10))])
    fit(make_classifier(), tmp_path, [Embeddings(images=[1])], epochs=2)  # a resumed run keeps its earlier epochs
    trainer = fit(module, tmp_path, [Embeddings(images=[5, 0, 23])], epochs=1)
    config = (tmp_path / "projector_config.pbtxt").read_text()
    assert all(f"projector/{step}/embeddings/tensors.tsv" in config for step in ("00003", "00006"))
    folder = tmp_path / "projector/00003/embeddings"
    images, targets = trainer.val_dataloaders.dataset.tensors
    chosen = images[[5, 0, 23]]
    with torch.no_grad():
        network = module.eval().network
        x = network.pool2(network.conv2(network.pool1(network.conv1(chosen).relu())).relu()).flatten(1)
        expected = network.fc2(network.fc1(x).relu()).relu()
        preds = network(chosen).argmax(1)
    vectors = np.array(table(folder / "tensors.tsv"), dtype=float)
    np.testing.assert_allclose(vectors, expected.numpy(), rtol=1e-4, atol=1e-5)
    names = ["white space and a tab", *module.class_names[1:]]
    rows = [[names[targets[i]], names[pred]] for i, pred in zip([5, 0, 23], preds, strict=True)]
    assert table(folder / "metadata.tsv") == [["class", "predicted"], *rows]
    sprite = np.array(Image.open(folder / "sprite.png").convert("RGB"))
    first = module.denormalize(chosen)[0].permute(1, 2, 0).numpy() * 255
    np.testing.assert_allclose(sprite[:32, :32], first, atol=1.01)


def test_network_without_a_linear_layer_shows_its_output(make_classifier: Make, tmp_path: Path) -> None:
    fit(make_classifier(network=NiN), tmp_path, [Embeddings(images=4)], epochs=1)
    assert np.array(table(tmp_path / "projector/00003/embeddings/tensors.tsv")).shape == (4, 10)


def test_an_output_without_logits_is_not_a_prediction(make_classifier: Make) -> None:
    module = make_classifier()
    module.network = LeNet(64)  # returns embeddings instead of logits
    gathered, names = Embeddings().collect(NO_TRAINER, module, torch.randn(2, 3, 32, 32), torch.tensor([1, 2]))
    assert gathered["preds"].tolist() == [-1, -1]
    assert names == module.class_names


@torch.no_grad()
def test_images_run_through_the_network_in_batches(make_classifier: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    module, sizes = make_classifier().eval(), []
    images, targets = torch.randn(20, 3, 32, 32), torch.arange(20) % 10
    module.network.conv1.register_forward_hook(lambda layer, args, output: sizes.append(len(output)))
    whole, _ = Embeddings().collect(NO_TRAINER, module, images, targets)
    monkeypatch.setattr(callbacks.embeddings, "BATCH", 8)
    parts, _ = Embeddings().collect(NO_TRAINER, module, images, targets)
    assert sizes == [20, 8, 8, 4]
    assert parts["vectors"].shape == (20, 84)
    for name, values in whole.items():
        torch.testing.assert_close(parts[name], values)
