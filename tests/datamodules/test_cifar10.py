import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import EXTRACT, PER_CLASS, batch_content, write_archive
from PIL import Image
from torchvision.datasets import CIFAR10

from datamodules import CIFAR10DataModule, DataError
from datamodules.preparation.cifar10_archive import BATCHES, FOLDER, read_batches
from datamodules.preparation.dataset_info import FILE
from datamodules.preparation.index import STAGES, digest_of, read_index, text_of
from datamodules.preparation.split import divide

BATCH = 10 * PER_CLASS


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> CIFAR10DataModule:
    """Return the module of a prepared tiny archive, which is gone. Tests must not change its folder."""
    folder = tmp_path_factory.mktemp("cifar10")
    contents = {f"{FOLDER}/{name}": batch_content(seed) for seed, name in enumerate(BATCHES)}
    module = CIFAR10DataModule(root=str(folder / "data"), archive=str(write_archive(folder / "tiny.tar.gz", contents)))
    module.prepare_data()
    return module


@pytest.fixture
def copy(prepared: CIFAR10DataModule, tmp_path: Path) -> str:
    """Return a copy of the prepared folder."""
    return str(shutil.copytree(prepared.root, tmp_path / "copy"))


def test_pixels_on_disk_are_those_of_the_archive(prepared: CIFAR10DataModule) -> None:
    names = json.loads((prepared.root / FILE).read_text())["class_names"]
    for batch in read_batches(prepared.root.parent / "tiny.tar.gz"):
        for i, (pixels, label) in enumerate(zip(batch.pixels, batch.labels, strict=True)):
            path = prepared.root / f"images/{batch.subset}/{names[label]}/{label}_{batch.first_index + i}.png"
            with Image.open(path) as image:
                np.testing.assert_array_equal(np.array(image), pixels)
    assert len(list(prepared.root.rglob("*.png"))) == 6 * BATCH


def test_official_split_is_stratified_and_keeps_the_test_images(prepared: CIFAR10DataModule) -> None:
    assert prepared.prepared.counts == {
        stage: dict.fromkeys(prepared.class_names, count)
        for stage, count in (("train", 45 * PER_CLASS // 10), ("val", 5 * PER_CLASS // 10), ("test", PER_CLASS))
    }
    stages = {stage: {path for path, _ in read_index(prepared.root / f"{stage}.txt")} for stage in STAGES}
    assert len(stages["train"] | stages["val"] | stages["test"]) == 6 * BATCH
    assert all(path.startswith("images/test/") for path in stages["test"])


def test_official_split_never_changes_between_versions(prepared: CIFAR10DataModule) -> None:
    # recorded with the first version, so that folders prepared then stay valid
    digests = prepared.prepared.digests
    assert [digests[f"{stage}.txt"][:16] for stage in ("train", "val")] == ["217880905747d01c", "bc86998a6d578ebf"]
    labels = [7 * i % 10 for i in range(50_000)]  # as many as in the real dataset
    train, val = divide([(f"images/train/{i}.png", label) for i, label in enumerate(labels)], (0.9, 0.1), 666)
    assert [digest_of(text_of(part))[:16] for part in (train, val)] == ["c5cc8e3a7ff6b108", "3fe1e8bd0b28c6b1"]


def test_tutorial_split_divides_the_test_images_and_writes_no_others(archive: Path, tmp_path: Path) -> None:
    data = CIFAR10DataModule(root=str(tmp_path / "data"), archive=str(archive), split="tutorial")
    counts = {stage: set(by_class.values()) for stage, by_class in data.prepared.counts.items()}
    assert counts == {"train": {8}, "val": {1}, "test": {1}}
    assert not (data.root / "images/train").exists()


@pytest.mark.parametrize("place", ["data", ".", "downloads"])
@pytest.mark.parametrize("packed", [True, False])
def test_archive_is_found_in_the_root_its_parent_or_the_given_folder(
    archive: Path, tmp_path: Path, place: str, packed: bool
) -> None:
    folder = tmp_path / place
    folder.mkdir(exist_ok=True)
    given = str(folder) if place == "downloads" else None
    module = CIFAR10DataModule(root=str(tmp_path / "data"), archive=given)
    if given:
        with pytest.raises(DataError, match=r"but .*downloads is neither .* Download it from https.*Folder"):
            module.prepare_data()
    if packed:
        shutil.copy(archive, folder / CIFAR10.filename)
    else:
        shutil.unpack_archive(archive, folder, **EXTRACT)
        assert (folder / FOLDER).is_dir()
    assert module.num_classes == 10


def test_unofficial_archive_is_reported_in_one_line(
    archive: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        CIFAR10DataModule(root=str(tmp_path / "data"), archive=str(archive)).prepare_data()
    messages = [record.getMessage() for record in caplog.records if "MD5" in record.getMessage()]
    assert len(messages) == 1
    assert "not the official one" in messages[0]


def test_without_a_network_the_error_names_the_places_and_three_remedies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(DataError) as error:
        CIFAR10DataModule(root=str(tmp_path / "data")).prepare_data()
    message = str(error.value)
    for part in ("data/cifar-10-batches-py", "127.0.0.1:9", "put it into", "--data.archive", "sample.yaml"):
        assert part in message
    assert "\n" not in message
    with pytest.raises(DataError, match=r"nowhere\.tar\.gz does not exist"):
        CIFAR10DataModule(root=str(tmp_path / "data"), archive="nowhere.tar.gz").prepare_data()


def test_another_split_is_refused_until_it_is_asked_for(prepared: CIFAR10DataModule, copy: str) -> None:
    with pytest.raises(DataError, match="overwrite_split true"):
        CIFAR10DataModule(root=copy, split="tutorial").prepare_data()
    tutorial = CIFAR10DataModule(root=copy, split="tutorial", overwrite_split=True).prepared
    assert sum(tutorial.counts["train"].values()) == 8 * PER_CLASS
    assert CIFAR10DataModule(root=copy, split="official", overwrite_split=True).digest == prepared.digest
    fractions = CIFAR10DataModule(root=copy, split=(0.5, 0.3, 0.2), overwrite_split=True).prepared.counts
    assert {stage: set(of_class.values()) for stage, of_class in fractions.items()} == {
        "train": {30},
        "val": {18},
        "test": {12},
    }
    (Path(copy) / FILE).unlink()  # it names the split of the index files
    with pytest.raises(DataError, match=r"but dataset\.json is missing.*overwrite_split true"):
        CIFAR10DataModule(root=copy).prepare_data()
    assert CIFAR10DataModule(root=copy, overwrite_split=True).digest == prepared.digest
