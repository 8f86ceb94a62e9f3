"""Run ``python -m project`` with these arguments, and stop it as Ctrl-C does if the process that started it exits."""

import os
import runpy
import signal
import threading
import time

INTERVAL = 0.5  # seconds


def watch(parent: int) -> None:
    """Wait until this process has another parent, and send it SIGTERM."""
    while os.getppid() == parent:
        time.sleep(INTERVAL)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=watch, args=[os.getppid()], daemon=True).start()
    runpy.run_module("project", run_name="__main__", alter_sys=True)
