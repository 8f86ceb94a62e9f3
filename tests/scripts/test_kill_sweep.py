import os
import subprocess
import sys
from pathlib import Path

import pytest

TASK = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0"}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc to find the processes of trials")
@pytest.mark.parametrize("options", [["--methods", "grid", "random"], ["--methods", "tpe", "--workers", "1"]])
def test_a_sweep_whose_processes_are_killed_has_the_same_trials_as_an_undisturbed_one(options: list[str]) -> None:
    command = [sys.executable, "scripts/kill_sweep.py", "--kills", "6", *options]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": "."}, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("6 kills: 0 results differ\n")


@pytest.mark.slow
def test_tasks_of_an_array_job_share_a_sweep_and_a_stopped_one_is_queued_again(fast: list[str], tmp_path: Path) -> None:
    """SLURM's ``scontrol`` is replaced, and its signal is sent by this test."""
    programs = {"bin/scontrol": f'echo "$@" > {tmp_path}/queued', ".venv/bin/python": f'exec {sys.executable} "$@"'}
    for name, line in programs.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    root = Path.cwd()
    for name in ("configs", "scripts"):
        (tmp_path / name).symlink_to(root / name)
    (tmp_path / "plan.yaml").write_text("parameters: {seed_everything: [0, 1]}")
    paths = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "PYTHONPATH": str(root)}
    command = ["bash", "scripts/slurm_sweep.sh", *fast, "--callbacks=false", "--sweep=plan.yaml"]
    start = {"env": os.environ | TASK | paths, "cwd": tmp_path, "stdout": subprocess.PIPE, "text": True}
    stopped = subprocess.Popen(command, **start)
    for line in stopped.stdout:
        if line.startswith("Sweep: "):
            break
    stopped.terminate()
    output = stopped.communicate(timeout=300)[0]
    assert stopped.returncode == 143, output
    assert (tmp_path / "queued").read_text() == "requeue 7_0\n"
    done = subprocess.run(command, **start, timeout=300, check=True)
    assert "Mean ± sample std" in done.stdout
    assert len(list((tmp_path / "runs").glob("lenet/*/config.yaml"))) == 2
