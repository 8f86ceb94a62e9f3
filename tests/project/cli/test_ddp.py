"""Distributed training: same results as one process, all images are used, and all ranks exit after a failure."""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from watching import events

from project.__main__ import main

pytestmark = pytest.mark.slow
TESTS = Path(__file__).parents[2]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{TESTS}:{TESTS / 'project/resume'}"}
FIT = [
    *("--config=configs/lenet.yaml", "--data=datamodules.SampleDataModule", "--data.num_workers=0"),
    *("--data.batch_transforms=null", "--trainer.max_epochs=2", "--trainer.log_every_n_steps=4"),
    *("--trainer.enable_progress_bar=false", "--test_after_fit=true"),
    "--trainer.precision=64-true",  # otherwise, rounding grows: 1e-7 in a step may be 1e-4 at the end
]
CPU = ["--config=configs/ddp.yaml", "--trainer.accelerator=cpu"]


def run(*args: str, launcher: tuple[str, ...] = (), timeout: int = 240, **env: str) -> tuple[int, str, float]:
    """Return exit code, output and end time of ``python -m project fit``, optionally with torchrun."""
    command = [sys.executable, "-m", *launcher, *(["-m"] if launcher else []), "project", "fit", *args]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, env={**ENV, **env}
    )
    return done.returncode, done.stdout, time.time()


def torchrun(processes: int) -> tuple[str, ...]:
    return ("torch.distributed.run", f"--nproc_per_node={processes}", "--standalone", "--nnodes=1")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def fail(folder: Path, hook: str, how: str) -> list[str]:
    """Return the options that make rank 1 fail in a hook, after it touched ``<folder>/failed``."""
    options = {"note": folder / "failed", "hook": hook, "how": how}
    return [
        "--trainer.callbacks+=failing.Fail",
        *(f"--trainer.callbacks.{key}={value}" for key, value in options.items()),
    ]


def only(folder: Path) -> Path:
    (path,) = (path for path in folder.glob("*/*") if path.is_dir())
    return path


def numbers(file: Path) -> list[dict[str, float | str]]:
    """Return the rows of a CSV file with numbers as floats, without directories, times and values of rank zero only."""
    rows: list[dict[str, float | str]] = []
    for row in csv.DictReader(file.open(newline="")):
        row |= {"path": Path(row["path"]).name} if "path" in row else {}
        cells = {key: value for key, value in row.items() if value and not re.match("time/|train/loss_step", key)}
        rows.append(
            {key: float(value) if re.fullmatch(r"-?[\d.]+(e-?\d+)?", value) else value for key, value in cells.items()}
        )
    return [row for row in rows if not {*row} <= {"epoch", "step"} and not any(key.startswith("lr-") for key in row)]


def differences(first: Path, second: Path, skip: str = "") -> dict[str, float]:
    """Return the largest differences of the weights, metrics and tables, except that named ``skip``, of two runs.

    Numbers above 1 are compared relatively.
    """
    states = [torch.load(run / "checkpoints/last.ckpt", weights_only=False)["state_dict"] for run in (first, second)]
    largest = {"weights": max((states[0][key] - states[1][key]).abs().max().item() for key in states[0])}
    files = sorted(file.relative_to(first) for file in first.glob("*.csv") if file.name != skip)
    tests = [next((run / "test").iterdir()) for run in (first, second)]
    pairs = [(first / file, second / file) for file in files]
    pairs += [(file, tests[1] / file.name) for file in sorted(tests[0].glob("*.csv"))]
    assert len(pairs) > 4
    for here, there in pairs:
        rows = numbers(here), numbers(there)
        assert len(rows[0]) == len(rows[1]) > 0, here
        for left, right in zip(*rows, strict=True):
            assert left.keys() == right.keys(), here
            for key in left:
                a, b = left[key], right[key]
                name = f"{here.name} {key}" if here.name != "metrics.csv" else key
                if isinstance(a, float) and isinstance(b, float):
                    largest[name] = max(largest.get(name, 0.0), abs(a - b) / max(abs(a), 1.0))
                else:
                    assert a == b, (here, key)
    return largest


def seen(folder: Path, stage: str) -> Counter[str]:
    """Return how often each image was used in a stage, over all ranks."""
    lines = [line.split(" ", 1) for file in folder.iterdir() for line in file.read_text().splitlines()]
    return Counter(path for its, path in lines if its == stage)


@pytest.fixture(scope="module")
def alone(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the run of one process (``runs``) and its images (``seen``)."""
    folder = tmp_path_factory.mktemp("alone")
    options = [
        *("fit", *FIT, f"--data.root={sample_root}", "--data.batch_size=32", f"--runs_dir={folder / 'runs'}"),
        *("--trainer.callbacks+=failing.Seen", f"--trainer.callbacks.folder={folder / 'seen'}"),
    ]
    main(options)
    return folder


def test_two_processes_train_test_and_draw_as_one_does(alone: Path, sample_root: Path, tmp_path: Path) -> None:
    code, output, _ = run(
        *(*FIT, *CPU, "--trainer.devices=2", f"--data.root={sample_root}", "--data.batch_size=16"),
        *("--model.optimizer.lr=0.025", "--model.scale_lr=linear"),  # that of lenet.yaml is 0.05
        *("--trainer.callbacks+=failing.Seen", f"--trainer.callbacks.folder={tmp_path / 'seen'}"),
        f"--runs_dir={tmp_path / 'runs'}",
    )
    assert code == 0, output[-3000:]
    largest = differences(only(alone / "runs"), only(tmp_path / "runs"))
    assert max(largest.values()) < 1e-5, largest
    assert {"weights", "train/loss", "val/loss", "val/acc", "test/loss", "test/acc"} <= largest.keys()
    assert len(list(only(tmp_path / "runs").glob("events.out.*"))) == 1
    one, two = events(only(alone / "runs")), events(only(tmp_path / "runs"))
    assert {"confusion_matrix/val", "mistakes/val", "grad_cam/conv2", "feature_maps/conv1"} <= {*two.Tags()["images"]}
    for kind, read in (("images", EventAccumulator.Images), ("histograms", EventAccumulator.Histograms)):
        assert two.Tags()[kind] == one.Tags()[kind]
        assert [len(read(two, tag)) for tag in two.Tags()[kind]] == [len(read(one, tag)) for tag in one.Tags()[kind]]
    for stage in ("train0", "train1", "val0", "val1", "test"):
        images = seen(tmp_path / "seen", stage)
        assert images == seen(alone / "seen", stage), stage
        assert set(images.values()) == {1}
    for once in (
        "A step takes 32 images: 16 x 2 (devices) x 1 (accumulate_grad_batches). Learning rates: --model.scale_lr lin",
        "Parameter groups",
        "Measured  ",
        "Report  ",
    ):
        assert output.count(once) == 1, (once, output)
    for warning in ("sync_dist", "could not draw"):
        assert warning not in output


def test_four_processes_of_torchrun_prepare_once_and_train_as_one_does(alone: Path, tmp_path: Path) -> None:
    code, output, _ = run(
        *(*FIT, *CPU, "--trainer.devices=4", f"--data.root={tmp_path / 'data'}", "--data.batch_size=8"),
        *("--trainer.callbacks+=failing.Seen", f"--trainer.callbacks.folder={tmp_path / 'seen'}"),
        f"--runs_dir={tmp_path / 'runs'}",
        launcher=torchrun(4),
    )
    assert code == 0, output[-3000:]
    largest = differences(only(alone / "runs"), only(tmp_path / "runs"))
    assert max(largest.values()) < 1e-5, largest
    for stage in ("train0", "train1", "val0", "val1", "test"):
        assert seen(tmp_path / "seen", stage) == seen(alone / "seen", stage), stage
    assert seen(tmp_path / "seen", "seed") == {str(rank): 1 for rank in range(4)}  # dropout differs between ranks
    assert output.count("Reading 1797 images") == 1


def test_a_signal_to_one_process_stops_all_and_the_resumed_run_is_equal(
    alone: Path, sample_root: Path, tmp_path: Path
) -> None:
    options = [*FIT, *CPU, "--trainer.devices=2", f"--data.root={sample_root}", "--data.batch_size=16"]
    stop = f"{{class_path: test_resume.StopAt, init_args: {{step: 15, number: {signal.SIGTERM}, rank: 1}}}}"
    code, output, _ = run(*options, f"--trainer.callbacks+={stop}", f"--runs_dir={tmp_path / 'runs'}")
    assert code == 143, output[-3000:]
    stopped = only(tmp_path / "runs")
    assert torch.load(stopped / "checkpoints/last.ckpt", weights_only=True)["global_step"] in (20, 30)
    assert output.count("Resume:  ") == output.count(f" -m project fit --run {stopped}") == 1
    code, output, _ = run("--run", str(stopped), "--trainer.enable_progress_bar=true")
    assert code == 0, output[-3000:]
    largest = differences(only(alone / "runs"), stopped, skip="distributions.csv")  # drawn when it stopped, too
    assert max(largest.values()) < 1e-5, largest


def test_a_run_stops_between_steps_and_new_settings_are_those_of_each_process(
    sample_root: Path, tmp_path: Path
) -> None:
    options = [*FIT, "--trainer.accumulate_grad_batches=3", "--trainer.max_epochs=1", f"--data.root={sample_root}"]
    options += ["--test_after_fit=false"]
    whole = main(["fit", *options, "--data.batch_size=32", f"--runs_dir={tmp_path / 'whole'}"]).run_dir
    same = "--trainer.callbacks+=failing.SameOnAll"
    ddp = [*options, *CPU, "--trainer.devices=2", "--data.batch_size=16", f"--runs_dir={tmp_path / 'runs'}", same]
    stop = f"{{class_path: test_resume.StopAt, init_args: {{step: 5, number: {signal.SIGTERM}, rank: 1}}}}"
    code, output, _ = run(*ddp, f"--trainer.callbacks+={stop}")
    assert code == 143, output[-3000:]
    stopped = only(tmp_path / "runs")
    checkpoint = torch.load(stopped / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["ready"] % 3 == 0
    code, output, _ = run("--run", str(stopped))
    assert code == 0, output[-3000:]
    states = [torch.load(path / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for path in (whole, stopped)]
    assert max((states[0][key] - states[1][key]).abs().max().item() for key in states[0]) < 1e-5
    more = ["--trainer.max_epochs=2", "--model.optimizer.lr=0.3", "--model.lr_scheduler=null"]
    code, output, _ = run("--run", str(stopped), *more)
    assert code == 0, output[-3000:]
    assert "Changed      model.init_args.optimizer.init_args.lr: 0.05 -> 0.3" in output


def test_a_sharded_network_trains_like_replicas_resumes_and_is_tested_by_one_process(
    sample_root: Path, tmp_path: Path
) -> None:
    short = [*FIT[:-1], "--trainer.max_epochs=1", f"--data.root={sample_root}", "--data.batch_size=16"]
    # compared with DDP on two devices in float32, because float64 is not supported
    code, output, _ = run(*short, *CPU, "--trainer.devices=2", f"--runs_dir={tmp_path / 'whole'}")
    assert code == 0, output[-3000:]
    options = [*short, "--config=configs/fsdp.yaml", "--trainer.accelerator=cpu"]
    stop = f"{{class_path: test_resume.StopAt, init_args: {{step: 15, number: {signal.SIGTERM}, rank: 1}}}}"
    code, output, _ = run(*options, f"--trainer.callbacks+={stop}", f"--runs_dir={tmp_path / 'runs'}")
    assert code == 143, output[-3000:]
    divided = only(tmp_path / "runs")
    code, output, _ = run("--run", str(divided))
    assert code == 0, output[-3000:]
    largest = differences(only(tmp_path / "whole"), divided, skip="distributions.csv")  # of whole weights
    assert max(largest.values()) < 1e-5, largest
    tested = main(["test", f"--run={divided}", "--trainer.strategy=auto", "--trainer.devices=1"]).output_dir
    (before,) = (one for one in (divided / "test").iterdir() if one != tested)
    metrics = [json.loads((folder / "results.json").read_text())["metrics"] for folder in (before, tested)]
    assert metrics[0] == pytest.approx(metrics[1])


def test_an_error_of_one_process_ends_all_and_is_reported_once(sample_root: Path, tmp_path: Path) -> None:
    code, output, end = run(
        *(*FIT, *CPU, "--trainer.devices=2", f"--data.root={sample_root}", f"--runs_dir={tmp_path / 'runs'}"),
        *fail(tmp_path, "on_train_batch_end", "raise"),
    )
    assert code != 0
    assert output.count("this went wrong in on_train_batch_end") == 1, output
    assert output.count("Rank 1 of 2 failed:") == 1
    assert end - (tmp_path / "failed").stat().st_mtime < 60


def test_a_task_of_slurm_that_is_killed_ends_the_other(sample_root: Path, tmp_path: Path) -> None:
    port = str(free_port())
    options = [*FIT, *CPU, "--trainer.devices=1", "--trainer.num_nodes=2", f"--data.root={sample_root}"]
    options += [f"--runs_dir={tmp_path / 'runs'}", *fail(tmp_path, "on_validation_batch_end", "kill")]
    slurm = {"NTASKS": "2", "NTASKS_PER_NODE": "1", "NNODES": "2", "LOCALID": "0", "JOB_ID": "1", "JOB_NAME": "train"}
    env = {f"SLURM_{key}": value for key, value in slurm.items()} | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    with ThreadPoolExecutor() as pool:  # as srun starts them; both machines are this one
        ranks = [{**env, "SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank)} for rank in range(2)]
        ends = list(pool.map(lambda its: run(*options, **its), ranks))
    assert [code for code, _, _ in ends] == [1, -9]
    assert "Rank 0 of 2 failed:" in ends[0][1]
    assert ends[0][2] - (tmp_path / "failed").stat().st_mtime < 60
    assert only(tmp_path / "runs").is_dir()  # only rank zero creates one
