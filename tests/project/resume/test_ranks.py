import os
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_a_process_ends_after_the_one_that_launched_it() -> None:
    child = "import sys, time; from project.resume.ranks import follow_rank_zero; follow_rank_zero()"
    child += "; print('ready', file=sys.stderr, flush=True); time.sleep(200)"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}], stderr=-1).stderr.readline()"
    env = {key: value for key, value in os.environ.items() if key != "RANK"} | {"LOCAL_RANK": "1"}
    # returns when both have closed stdout
    subprocess.run([sys.executable, "-c", parent], stdout=subprocess.PIPE, timeout=100, env=env, check=True)
