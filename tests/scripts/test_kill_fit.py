import os
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork to start processes quickly")
def test_a_run_stopped_at_any_moment_resumes_to_the_same_result() -> None:
    command = [sys.executable, "scripts/kill_fit.py", "--rounds", "6"]
    # in another process: this one has threads of OpenMP, for which a forked process would wait forever
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": "."}, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 rounds" in done.stdout
    assert done.stdout.endswith(": 0 results differ\n")
