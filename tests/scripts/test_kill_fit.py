import os
import subprocess
import sys

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork to make processes that start at once")
def test_stopped_at_any_moment_a_run_ends_as_if_it_had_not_been() -> None:
    command = [sys.executable, "scripts/kill_fit.py", "--rounds", "6"]
    # in a process of its own: this one has threads of OpenMP by now, which a fork would wait for in vain
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": "."}, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 rounds" in done.stdout
    assert done.stdout.endswith(": 0 results differ\n")
