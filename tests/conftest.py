"""Fixtures: a CIFAR-10 archive with few images, the sample as PNG files, and finished runs that tests share."""

import io
import logging
import pickle
import signal
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules import SampleDataModule
from datamodules.preparation.cifar10_archive import BATCHES, CLASS_NAMES, FOLDER
from lightning_modules import ImageClassifier
from lightning_modules.networks import LeNet
from project.__main__ import main

EXTRACT: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.4 and later
PER_CLASS = 10  # images of each class in a batch of the tiny archive


def batch_content(seed: int) -> bytes:
    """Return a batch file of random images."""
    labels = list(range(10)) * PER_CLASS
    data = np.random.default_rng(seed).integers(0, 256, (len(labels), 3072), np.uint8)
    return pickle.dumps({b"data": data, b"labels": labels}, protocol=2)


def archive_contents() -> dict[str, bytes]:
    """Return the members of a tiny CIFAR-10 archive."""
    return {f"{FOLDER}/{name}": batch_content(seed) for seed, name in enumerate(BATCHES)}


def write_archive(path: Path, contents: dict[str, bytes]) -> Path:
    """Write a tar.gz with the given members."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")


@pytest.fixture(autouse=True)
def _usual_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """Propagate Lightning's log records to caplog, which some versions of Lightning do not, and print full lines."""
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "propagate", True)
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest-xdist sets it


@pytest.fixture(autouse=True)
def _not_ignored() -> Iterator[None]:
    """Reset ignored signals, also for child processes: background jobs of a shell, and nohup, ignore some."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def contents() -> dict[str, bytes]:
    """Return the members of a tiny archive."""
    return archive_contents()


@pytest.fixture
def archive(tmp_path: Path, contents: dict[str, bytes]) -> Path:
    """Return a tiny archive with a name that is not the default."""
    return write_archive(tmp_path / "tiny.tar.gz", contents)


@pytest.fixture(scope="session")
def sample_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the prepared directory of the sample. Tests must not change it."""
    root = tmp_path_factory.mktemp("sample")
    SampleDataModule(root=str(root)).prepare_data()
    return root


@pytest.fixture(scope="session")
def fast(sample_root: Path) -> list[str]:
    """Return options to train LeNet's recipe on part of the sample in seconds."""
    return [
        *("--config", "configs/lenet.yaml", "--data", "datamodules.SampleDataModule", f"--data.root={sample_root}"),
        *("--data.num_workers=0", "--data.batch_size=32", "--trainer.max_epochs=2", "--trainer.limit_train_batches=12"),
        *("--trainer.log_every_n_steps=4", "--trainer.enable_progress_bar=false", "--report=false"),
    ]


@pytest.fixture(scope="session")
def finished_run(fast: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a finished run with all callbacks. Tests may only add files to it."""
    return main(["fit", *fast, f"--runs_dir={tmp_path_factory.mktemp('finished')}"]).run_dir


@pytest.fixture(scope="session")
def plain_run(fast: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a finished run of two epochs without callbacks. Tests must not change it."""
    options = ["--callbacks=false", "--trainer.limit_train_batches=4", f"--runs_dir={tmp_path_factory.mktemp('plain')}"]
    return main(["fit", *fast, *options]).run_dir


@pytest.fixture(scope="session")
def make_classifier() -> Callable[..., ImageClassifier]:
    """Return a function that creates an ImageClassifier with the classes of CIFAR-10."""

    def make(**changes: Any) -> ImageClassifier:
        arguments: dict[str, Any] = {
            "network": LeNet,
            "optimizer": partial(torch.optim.SGD, lr=0.1, weight_decay=0.01),
            "class_names": list(CLASS_NAMES),
            "mean": [0.5, 0.4, 0.3],
            "std": [0.2, 0.25, 0.3],
            "image_size": 32,
        }
        return ImageClassifier(**(arguments | changes))

    return make


@pytest.fixture(scope="session")
def plain_state(fast: list[str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the state at the end of a resumed run without a tracker."""
    from tracked import fit_resume_and_test, state

    return state(fit_resume_and_test(fast, tmp_path_factory.mktemp("untracked")))
