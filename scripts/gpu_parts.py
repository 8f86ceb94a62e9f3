"""Run one part of the GPU measurements, and write the results as JSON; scripts/gpu.sh runs all parts.

python scripts/gpu_parts.py airbench --root data/cifar10 --peer airbench94_muon.py --output airbench.json

The file is replaced after each measurement: a part that is interrupted leaves its completed measurements, with
``"complete": false``.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from datetime import date
from importlib.metadata import version
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import benchmark_accuracy
import benchmark_callbacks
import benchmark_step
import photos
import pytest
import torch
from benchmark_accuracy import describe, finish_row
from lightning.pytorch import Callback, LightningModule, Trainer
from measure import fit, hardware, now

import datamodules
from atomic_files import write_atomically
from datamodules.errors import DataError
from datamodules.transforms.batch import BatchContext
from project.runs.record import processor

ROOT = Path(__file__).parents[1]
# options with which --tiny makes every measurement in seconds on a CPU
TINY = ["--trainer.max_epochs=2", "--trainer.limit_train_batches=3", "--data.batch_size=64", "--trainer.precision=32"]
AIRBENCH = ["configs/airbench.yaml"]
WITHOUT_CALLBACKS = ["--callbacks=false"]
PEER_RUNS = "range(200)"  # in the published script
RESNET_BF16 = ["--trainer.precision=bf16-mixed"]
TRANSFORMS: dict[str, Callable[[], Any]] = {
    "RandomCrop, padding 4": lambda: datamodules.RandomCrop(4),
    "RandomCrop, padding 2, reflect": lambda: datamodules.RandomCrop(2, padding_mode="reflect"),
    "RandomHorizontalFlip": datamodules.RandomHorizontalFlip,
    "AlternatingFlip": datamodules.AlternatingFlip,
    "Cutout, 8 pixels": lambda: datamodules.Cutout(8),
    "MixUp": datamodules.MixUp,
    "CutMix": datamodules.CutMix,
    "ProgressiveResize to 24 pixels": lambda: datamodules.ProgressiveResize({0: 24}),
}


class Results:
    """Results of one part, in a file that is always complete.

    Args:
        options: Options of the command line; those that are not paths are written to the file.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.path = options.output
        command = ["python", "scripts/gpu_parts.py", options.part, "--seeds", f"{options.seeds}"]
        command += [*(["--peer", options.peer.name] if options.peer else []), *(["--tiny"] if options.tiny else [])]
        self.content: dict[str, Any] = {
            "part": options.part,
            "complete": False,
            "tiny": options.tiny,
            "data": describe_data(options),
            "date": f"{date.today()}",
            "command": shlex.join(command),
            "commit": benchmark_accuracy.version_of_code(),
            "machine": machine(),
            "results": {},
        }
        self.write()

    def add(self, **results: Any) -> None:
        """Add or replace results."""
        self.content["results"] |= results
        self.write()

    def finish(self, error: str | None = None) -> None:
        """Mark the part as complete, or record the error."""
        self.content |= {"complete": error is None, **({"error": error} if error else {})}
        self.write()

    def write(self) -> None:
        """Write the file atomically."""
        with write_atomically(self.path) as partial:
            partial.write_text(json.dumps(self.content, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """Return GPU, driver, CPU and versions."""
    packages = ("torch", "torchvision", "lightning", "torchmetrics")
    facts = {"hardware": hardware(), **processor(), "python": platform.python_version()}
    facts |= {package: version(package) for package in packages}
    if torch.cuda.is_available():
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        facts |= {"cuda": torch.version.cuda, "driver": subprocess.check_output(query, text=True).split()[0]}
    return facts


def prepare(options: argparse.Namespace) -> None:
    """Check the options, and write the images as PNG files with their cache.

    Raises:
        SystemExit: There is no GPU or no archive, or the peer is another script.
    """
    if not options.tiny and not torch.cuda.is_available():
        raise SystemExit("error: Expected a CUDA GPU, but torch finds none. For a trial without a GPU, use --tiny.")
    if options.peer is not None:
        with_runs(options.peer, options.seeds)
    archive = options.archive
    if options.tiny and archive is None:
        archive = benchmark_step.write_archive(options.work / "cifar-10-batches-py", 3 * 64)
    try:
        open_data(options, archive)
    except DataError as error:
        raise SystemExit(f"error: {error}") from error


def open_data(options: argparse.Namespace, archive: Path | None = None) -> datamodules.CIFAR10DataModule:
    """Return the DataModule of all parts, prepared and set up."""
    data = datamodules.CIFAR10DataModule(root=str(options.work / "data"), archive=archive and str(archive))
    data.prepare_data()
    data.setup("fit")
    return data


def describe_data(options: argparse.Namespace) -> str:
    """Return ``--note``, or a description of the archive."""
    if options.note is not None or options.tiny:
        return options.note or "random images"
    official = all(source["official"] for source in open_data(options).source().values())
    return "CIFAR-10" if official else "CIFAR-10, not the pixels of the official archive"


def tests(options: argparse.Namespace, results: Results) -> None:
    """Run the tests that need a GPU."""
    files = [str(path) for path in sorted(ROOT.glob("tests/**/test_*.py")) if "pytest.mark.cuda" in path.read_text()]
    outcomes = Outcomes()
    code = pytest.main(["-m", "cuda", "-p", "no:cacheprovider", f"--rootdir={ROOT}", *files], [outcomes])
    results.add(exit_code=int(code), outcomes=dict(outcomes.counts), failures=outcomes.failures)


class Outcomes:
    """Pytest plugin that counts passed, failed and skipped tests, and records the names of failed ones."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count the call of a test, and its setup or teardown unless they pass."""
        if report.when == "call" or not report.passed:
            self.counts[report.outcome] += 1
            self.failures += [report.nodeid] if report.failed else []


def airbench(options: argparse.Namespace, results: Results) -> None:
    """Train airbench.yaml, the published script, and airbench.yaml without callbacks, with several seeds each.

    Nothing is compiled, because compiling the published script takes minutes; see ``airbench_compiled``.
    """
    train_seeds(options, results, "airbench", AIRBENCH)
    train_peer(options, results, "peer", {"TORCHDYNAMO_DISABLE": "1"})
    train_seeds(options, results, "airbench_without_callbacks", AIRBENCH, WITHOUT_CALLBACKS)


def airbench_sgd(options: argparse.Namespace, results: Results) -> None:
    """Train airbench.yaml with airbench_sgd.yaml, with several seeds."""
    train_seeds(options, results, "airbench_sgd", [*AIRBENCH, "configs/airbench_sgd.yaml"])


def airbench_compiled(options: argparse.Namespace, results: Results) -> None:
    """Train airbench.yaml without callbacks, and the published script, both compiled, with several seeds each."""
    compiled = [f"--model.compile={not options.tiny}", *WITHOUT_CALLBACKS]
    train_seeds(options, results, "airbench_compiled", AIRBENCH, compiled)
    train_peer(options, results, "peer_compiled")


def train_seeds(
    options: argparse.Namespace, results: Results, name: str, configs: list[str], extra: Sequence[str] = ()
) -> None:
    """Train an airbench recipe with several seeds in this process.

    Except in a trial, the first run is a warm-up, as in the published script: it compiles kernels and fills caches.
    """
    tiny = ["--model.network.init_args.widths=[8,8,8]", "--callbacks=false", *TINY] if options.tiny else []
    extra = [*extra, "--report=false"]
    rows: list[Any] = []
    curves: list[Any] = []
    test_seconds: list[float] = []
    for seed in (*([] if options.tiny else [None]), *range(options.seeds)):
        begin = time.time()
        clock = benchmark_accuracy.Clock(begin)
        row = quietly(benchmark_accuracy.train, seed or 0, fit_args(options, configs, [*extra, *tiny]), clock)
        if seed is None:
            continue
        rows.append(finish_row(row, begin, results.content["commit"]))
        curves.append(clock.rows)
        test_seconds.append(round(clock.testing, 4))
        arguments = describe(configs, extra, results.content["data"])
        results.add(**{name: {"arguments": arguments, "rows": rows, "curves": curves, "test_seconds": test_seconds}})


def train_peer(
    options: argparse.Namespace, results: Results, name: str, environment: Mapping[str, str] | None = None
) -> None:
    """Run the published script, if it is given, on the same training and test images."""
    if options.peer is None:
        return
    folder = options.work / name
    data = open_data(options)
    (folder / "cifar10").mkdir(parents=True)
    for stage, setup in (("train", "fit"), ("test", "test")):
        data.setup(setup)
        dataset = data.datasets[stage]
        images, labels = dataset.load(torch.arange(len(dataset)))
        images = images.permute(0, 2, 3, 1).contiguous()  # the script expects torchvision's layout
        content = {"images": images, "labels": labels, "classes": data.class_names}
        torch.save(content, folder / "cifar10" / f"{stage}.pt")
    (folder / "peer.py").write_text(with_runs(options.peer, options.seeds))
    process = subprocess.Popen(
        [sys.executable, "-u", "peer.py"],
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    runs: list[dict[str, float]] = []
    for line in process.stdout:
        print(line, end="", flush=True)
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 6 and cells[1] == "eval":
            runs.append({"accuracy": float(cells[4]), "seconds": float(cells[5])})
            results.add(**{name: runs[1:]})  # the first is the warm-up
    if process.wait():
        results.add(**{f"{name}_error": f"{options.peer.name} exited with code {process.returncode}; see log.txt"})


def with_runs(peer: Path, runs: int) -> str:
    """Return the published script with another number of runs.

    Raises:
        SystemExit: The file is another script.
    """
    source = peer.read_text()
    if source.count(PEER_RUNS) != 1:
        raise SystemExit(f"error: Expected airbench94_muon.py, with {PEER_RUNS} once, at --peer, but got {peer}.")
    return source.replace(PEER_RUNS, f"range({runs})")


def resnet(options: argparse.Namespace, results: Results) -> None:
    """Train resnet.yaml with one seed, and time its epochs with all callbacks and with none."""
    configs = ["configs/resnet.yaml"]
    few = [
        "--callbacks=false",
        "--trainer.callbacks=[callbacks.Throughput,callbacks.ConfusionMatrix]",
        "--model.network.init_args.depth=20",
    ]
    tiny = [*few, *TINY] if options.tiny else []
    clock = EpochClock(results, "epoch_seconds")
    args = fit_args(options, configs, [*RESNET_BF16, *tiny])
    row = quietly(benchmark_accuracy.train, 0, args, clock)
    row = finish_row(row, clock.began, results.content["commit"])
    arguments = describe(configs, RESNET_BF16, results.content["data"])
    results.add(resnet={"arguments": arguments, "rows": [row], "curves": [clock.rows]})
    without = [
        *RESNET_BF16,
        "--trainer.max_epochs=4",
        *tiny,
        *WITHOUT_CALLBACKS,
        "--report=false",
        "--seed_everything=0",
    ]
    quietly(fit, fit_args(options, configs, without), EpochClock(results, "epoch_seconds_without_callbacks"))


class EpochClock(benchmark_accuracy.Clock):
    """Also write the seconds of each epoch, including validation, drawing and checkpoints, as soon as it ends.

    Args:
        results: Results of the part.
        name: Name of the list of seconds.
    """

    def __init__(self, results: Results, name: str) -> None:
        super().__init__(time.time())
        self._results = results
        self._name = name

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        self._record()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        self._record()

    def _record(self) -> None:
        seconds = [round(after - before, 4) for before, after in pairwise(self.epoch_starts)]
        self._results.add(**{self._name: seconds})


def steps(options: argparse.Namespace, results: Results) -> None:
    """Time steps of LeNet and ResNet-18 against the bare loop, and collect operations that wait for the GPU."""
    os.environ |= {"FORCE_COLOR": "1", "TERM": "xterm-256color"}  # rich draws a progress bar only on a terminal
    count, repeats = (3, 1) if options.tiny else (60, 3)
    sizes = (4,) if options.tiny else (128, 512)
    networks = ("lenet",) if options.tiny else ("lenet", "resnet18")
    waits = {}
    for network in networks:
        waits[network] = find_waits(options, network, count)
        results.add(waits=waits)
    timings: dict[str, list[Any]] = {}
    for _ in range(repeats):
        for network in networks:
            for size in sizes:
                data = [f"--data.batch_size={size}", "--data.drop_last=true", *places(options)]
                methods, difference = benchmark_step.measure(network, data, options.work / "runs", count, 3)
                figures = {way: {"steps": times.steps, "epochs": times.epochs} for way, times in methods.items()}
                timings.setdefault(f"{network}, batch {size}", []).append({**figures, "difference": difference})
                results.add(steps=timings)


class WaitsForDevice(Callback):
    """Enable torch's warnings about operations that wait for the GPU, after ten steps, in steps that are not logged.

    Attributes:
        steps: Number of steps with warnings enabled.
    """

    def __init__(self) -> None:
        self.steps = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        is_logged = (trainer.global_step + 1) % trainer.log_every_n_steps == 0
        is_watched = batch_idx >= min(10, trainer.num_training_batches - 2) and not is_logged
        self._set("warn" if is_watched and batch_idx < trainer.num_training_batches - 1 else "default")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._set("default")

    def _set(self, mode: str) -> None:
        self.steps += mode == "warn"
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode(mode)


def find_waits(options: argparse.Namespace, network: str, count: int) -> dict[str, Any]:
    """Return the number of steps that ``WaitsForDevice`` watched, and the number of waits by file and line."""
    watch = WaitsForDevice()
    limits = ["--trainer.max_epochs=1", f"--trainer.limit_train_batches={count}", "--data.batch_size=64"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quietly(fit, [*benchmark_step.RECIPES[network].options, *limits, "--report=false", *places(options)], watch)
    places_of = Counter(
        f"{'/'.join(Path(warning.filename).parts[-3:])}:{warning.lineno}"
        for warning in caught
        if "synchronizing CUDA operation" in str(warning.message)
    )
    return {"steps": watch.steps, "places": dict(places_of.most_common())}


def operations(options: argparse.Namespace, results: Results) -> None:
    """Time histograms of ResNet-18 against ``add_histogram``, each transform of batches, and random crops of photos."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    events = 1 if options.tiny else 9
    results.add(histograms=benchmark_callbacks.measure_histograms(device, events, options.work / "histograms"))
    results.add(augmentation=augmentation_rates(device, options.tiny))
    results.add(photos=photos.rates(options.work, *((150, 1) if options.tiny else (1000, 3))))


def augmentation_rates(device: torch.device, tiny: bool) -> dict[str, dict[str, list[float]]]:
    """Return the images per second of each transform of uint8 images, by size of the batch."""
    repeats, calls = (1, 2) if tiny else (5, 100)
    measured = {}
    for size in (64,) if tiny else (128, 512, 2000):
        images = torch.randint(0, 256, (size, 3, 32, 32), dtype=torch.uint8, device=device)
        targets = torch.randint(0, 10, (size,), device=device)
        draw = BatchContext(torch.Generator(device).manual_seed(0), 0, torch.arange(size, device=device), 0, 10)
        rates: dict[str, list[float]] = {}
        for name, make in TRANSFORMS.items():
            transform = make()
            transform(images, targets, draw)
            for _ in range(repeats):
                start = now()
                for _ in range(calls):
                    transform(images, targets, draw)
                rates.setdefault(name, []).append(round(size * calls / (now() - start)))
        measured[f"batch {size}"] = rates
    return measured


def fit_args(options: argparse.Namespace, configs: list[str], extra: Sequence[str]) -> list[str]:
    """Return the options of ``fit``."""
    return [*(part for config in configs for part in ("--config", config)), *extra, *places(options)]


def places(options: argparse.Namespace) -> list[str]:
    """Return the options of ``fit`` for paths."""
    return [f"--data.root={options.work / 'data'}", f"--runs_dir={options.work / 'runs'}"]


def quietly(call: Callable[..., Any], *args: Any) -> Any:
    """Call a function with stdout discarded."""
    with redirect_stdout(StringIO()):
        return call(*args)


PARTS = {part.__name__: part for part in (tests, airbench, resnet, operations, steps, airbench_sgd, airbench_compiled)}


def main() -> None:
    """Run a part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["prepare", *PARTS])
    parser.add_argument("--work", type=Path, required=True, help="temporary directory for data and runs")
    parser.add_argument("--output", type=Path, help="JSON file of the results")
    parser.add_argument("--archive", type=Path, help="CIFAR-10's archive, or a directory that holds it")
    parser.add_argument("--peer", type=Path, help="the published airbench94_muon.py")
    parser.add_argument("--note", help="description of the data in the tables")
    parser.add_argument("--seeds", type=int, default=10, help="seeds of each airbench recipe")
    parser.add_argument("--tiny", action="store_true", help="run a short trial on any machine")
    options = parser.parse_args()
    options.work = options.work.absolute()
    if options.part == "prepare":
        prepare(options)
        return
    results = Results(options)
    try:
        PARTS[options.part](options, results)
    except BaseException as error:
        is_deadline = isinstance(error, SystemExit) and error.code == 143  # the exit code after SIGTERM
        results.finish("stopped at its deadline" if is_deadline else f"{type(error).__name__}: {error}")
        raise
    results.finish()


if __name__ == "__main__":
    main()
