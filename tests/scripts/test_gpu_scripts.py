import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gpu_table
import pytest

HEADER = "| recipe | network | data | epochs | hardware | minutes | val accuracy | test accuracy | n |"
TABLE = f"""{HEADER}
|---|---|---|---|---|---|---|---|---|
| `resnet.yaml --trainer.precision bf16-mixed` | ResNet-18 | CIFAR-10 | 30 | one GPU | not yet measured | | | |
| `airbench.yaml` | airbench's | CIFAR-10 | 8 | one GPU | not yet measured | | | |
| `airbench.yaml` + `airbench_sgd.yaml` | the same | CIFAR-10 | 10 | one GPU | not yet measured | | | |
"""
PARTS = ["tests", "airbench", "watching", "resnet", "operations", "steps", "airbench_sgd", "airbench_compiled"]
# prints like the published script, and reads the images from the same paths
PEER = """
import torch
for stage in ("train", "test"):
    data = torch.load(f"cifar10/{stage}.pt")
    assert data["images"].dtype == torch.uint8 and data["images"].shape[1:] == (32, 32, 3), data["images"].shape
    assert len(data["images"]) == len(data["labels"]) and len(data["classes"]) == 10
for run in ["warmup", *range(200)]:
    print(f"|  {run:>6}  |      7  |     0.9500  |   0.9300  |               |        2.4000  |")
    print("|          |   eval  |     0.9500  |   0.9300  |       0.9400  |        2.5000  |")
"""


@pytest.fixture
def peer(tmp_path: Path) -> Path:
    path = tmp_path / "airbench94_muon.py"
    path.write_text(PEER)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "build.py").write_text("")
    (folder / "pixels.xz").write_bytes(bytes(1000))
    return folder


def run(script: str | Path, *args: object) -> subprocess.CompletedProcess[str]:
    command = ["bash", f"scripts/{script}", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHON": sys.executable})


def tabulate(out: Path, folder: Path) -> tuple[list[str], str]:
    """Return the rows of the table, and the page, that gpu_table.py writes."""
    (folder / "README.md").write_text(TABLE)
    gpu_table.main([str(out), f"--table={folder / 'README.md'}", f"--results={folder / 'results'}"])
    (page,) = folder.glob("results/*_gpu/README.md")
    return (folder / "README.md").read_text().splitlines()[2:], page.read_text()


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


@pytest.mark.slow
def test_a_trial_measures_everything_and_a_stopped_one_is_used_too(tmp_path: Path, peer: Path) -> None:
    trial = tmp_path / "out"
    done = run("gpu.sh", trial, "--tiny", "--peer", peer)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in trial.iterdir()} == {*(f"{part}.json" for part in PARTS), "log.txt"}
    parts = {part: read(trial / f"{part}.json") for part in PARTS}
    assert all(part["complete"] for part in parts.values()), (trial / "log.txt").read_text()
    assert str(tmp_path) not in json.dumps(parts)  # the files are committed
    results = {name: part["results"] for name, part in parts.items()}
    assert results["tests"]["exit_code"] == 0
    without_warm_up = [{"accuracy": 0.94, "seconds": 2.5}]
    assert results["airbench"]["peer"] == results["airbench_compiled"]["peer_compiled"] == without_warm_up
    assert results["operations"]["histograms"]["equal"]
    assert [len(seconds) for seconds in results["watching"]["watching"].values()] == [1, 1]
    assert len(results["resnet"]["epoch_seconds"]) == len(results["resnet"]["epoch_seconds_without_callbacks"]) == 2
    assert all(repeat["difference"] < 1e-3 for repeats in results["steps"]["steps"].values() for repeat in repeats)
    assert len(results["operations"]["augmentation"]["batch 64"]) == 16
    assert len(results["operations"]["photos"]) == 2

    rows, page = tabulate(trial, tmp_path)
    assert ["not yet measured" in row for row in rows] == [False] * 3
    assert rows[1].startswith("| `airbench.yaml` | airbench's | random images | 2 |")
    assert "| `airbench94_muon.py`, not compiled | 1 | 2.50 | 1.00 | 94.00 % |" in page
    assert "| `airbench94_muon.py` | 1 | 2.50 | 1.00 | 94.00 % |" in page
    assert "| this project, originals, 2 workers | " in page
    assert "Not yet measured" not in page

    stopped = tmp_path / "stopped"
    stopped.mkdir()
    shutil.copy(trial / "tests.json", stopped)
    (stopped / "airbench.json").write_text(json.dumps(parts["airbench"] | {"complete": False}))
    rows, page = tabulate(stopped, stopped)
    assert ["not yet measured" in row for row in rows] == [True, False, True]
    assert "Incomplete" in page
    assert page.count("Not yet measured.") == 6


def test_a_trial_is_kept_out_of_the_table_of_recipes(tmp_path: Path) -> None:
    (tmp_path / "tests.json").write_text(json.dumps({"part": "tests", "tiny": True, "results": {}}))
    with pytest.raises(SystemExit, match="holds a trial"):
        gpu_table.main([str(tmp_path)])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["gpu.sh", "out", "--tiny", "--seconds", "soon"], "whole number, but got soon"),
        (["gpu.sh", "out", "--gpu"], "but got --gpu"),
        (["gpu.sh", "out", "--tiny", "--parts", "tests pictures"], "airbench_compiled, but got pictures"),
        (["gpu.sh", "configs", "--tiny"], "Expected an empty directory for the results"),
        (["gpu_pack.sh", "out"], "Expected CIFAR-10 at --data, but nothing does not exist"),
        (["gpu_pack.sh", "pack", "--data", "source", "--packages", "", "--limit", "0"], "Expected at most 0 MiB of"),
    ],
)
def test_bad_input_is_rejected_in_one_line(args: list[str], message: str, tmp_path: Path, data: Path) -> None:
    done = run(*(tmp_path / arg if arg in ("out", "pack", "source") else arg for arg in args))
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a GPU")
def test_no_gpu_is_reported_before_anything_runs(tmp_path: Path) -> None:
    assert "Expected a CUDA GPU" in run("gpu.sh", tmp_path / "out", "--archive", "configs").stderr


def test_a_pack_prints_the_call_that_uses_it(tmp_path: Path, data: Path, peer: Path) -> None:
    pack = tmp_path / "pack"
    done = run("gpu_pack.sh", pack, "--data", data, "--peer", peer, "--packages", "", "--note", "a copy")
    assert done.returncode == 0, done.stderr
    assert (pack / "data" / "pixels.xz").is_file()
    assert done.stdout.splitlines()[-1] == (
        f"python3 {pack}/data/build.py {pack}/archive && bash scripts/gpu.sh $OUT --archive {pack}/archive "
        f"--peer {pack}/airbench94_muon.py --note 'a copy'"
    )
