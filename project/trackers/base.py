"""The base class of trackers, and protection of training from their errors."""

import os
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng

from callbacks.tools.histogram import Histogram
from project.errors import RunError, shortened

BINS = 64  # of histograms; trackers take at most 512, and TensorBoard's have over 1,000
PAUSE = 60.0  # seconds without calls after an error, which may have waited for a timeout
PROTECTED = (
    *("log_metrics", "log_hyperparams", "log_image", "log_settings", "add_histogram", "add_text", "add_video"),
    *("save", "finalize", "after_save_checkpoint"),
)


class Tracker(Logger):
    """A logger that continues its run when training resumes, and takes settings and media.

    Subclasses may also have ``log_image(tag, images, step)``, ``add_histogram(tag, histogram, step)``,
    ``add_text(tag, markdown, step)`` and ``add_video(tag, file, step)``, which callbacks call.

    Attributes:
        title: Name in messages: that of the class in configs.
        package: Package that it needs.
    """

    title: str
    package: str
    _opened: Any = None

    @classmethod
    @abstractmethod
    def defaults(cls, name: str, folder: Path, identifier: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments for a run by its name, its directory, the tracker's identifier, and the user's arguments."""

    @abstractmethod
    def open(self) -> Any:
        """Start or continue the tracker's run, and return the object of its library to log with."""

    @property
    @abstractmethod
    def identifier(self) -> str | None:
        """Identifier with which a resumed run continues; None before the tracker's run is open."""

    @property
    @abstractmethod
    def place(self) -> str:
        """Where to see the run: a URL, a directory or a command."""

    @abstractmethod
    def log_settings(self, settings: dict[str, Any], commit: str | None) -> None:
        """Log the settings of the run by dotted key, and the git commit of its code."""

    @property
    def experiment(self) -> Any:
        """The object of the tracker's library to log with; opened at the first access, which Lightning does early.

        Raises:
            RunError: The tracker cannot be opened.
        """
        if self._opened is None:
            with starting(self.title), isolate_rng():  # libraries draw names and waiting times
                self._opened = self.open()
        return self._opened


@contextmanager
def starting(title: str) -> Iterator[None]:
    """Raise RunError for any error of a tracker that starts."""
    try:
        yield
    except RunError:
        raise
    except Exception as error:  # of any library
        reason = f"{type(error).__name__}: {shortened(error)}".rstrip(" .")
        raise RunError(
            f"Expected {title} to start, but got {reason}. To train without trackers, set --trainer.logger true."
        ) from error


def protect(logger: Logger) -> None:
    """Replace the methods of a logger that write, so that their errors are warnings: training continues.

    After an error, the logger is not called for ``PAUSE`` seconds, because each call may wait for a timeout.
    """
    failures = Failures(getattr(logger, "title", type(logger).__name__))
    for name in PROTECTED:
        if method := getattr(logger, name, None):
            setattr(logger, name, partial(failures.attempt, method))


class Failures:
    """Calls of a logger that failed, or were skipped after a failure."""

    def __init__(self, title: str) -> None:
        self._title, self._lost, self._resume_at = title, 0, 0.0

    def attempt(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call a method; warn at the first error, and state at the end how many calls were lost."""
        is_end = method.__name__ == "finalize"
        if is_end or time.monotonic() >= self._resume_at:
            try:
                method(*args, **kwargs)
            except Exception as error:  # of any library
                self._resume_at = time.monotonic() + PAUSE
                if not self._lost:
                    rank_zero_warn(
                        f"{self._title} could not {method.__name__} ({type(error).__name__}: {shortened(error)}). "
                        f"Training continues; it is tried again after {PAUSE:.0f} s."
                    )
                self._lost += 1
        else:
            self._lost += 1
        if is_end and self._lost:
            rank_zero_warn(f"{self._title} lacks the data of {self._lost} calls. The run directory has everything.")
            self._lost = 0


@contextmanager
def restored(variable: str) -> Iterator[None]:
    """Restore an environment variable at the end, so that it does not apply to later runs of this process."""
    before = os.environ.get(variable)
    try:
        yield
    finally:
        os.environ.pop(variable, None)
        if before is not None:
            os.environ[variable] = before


def uniform_bins(histogram: Histogram) -> tuple[np.ndarray, np.ndarray]:
    """Return counts in ``BINS`` bins of equal width, and their edges, assuming uniform values within a bucket."""
    limits = np.clip([histogram.min, *histogram.bucket_limits], histogram.min, histogram.max)
    below = np.cumsum([0, *histogram.bucket_counts])
    edges = np.linspace(histogram.min, max(histogram.max, np.nextafter(histogram.min, np.inf)), BINS + 1)
    ranks = np.interp(edges, limits, below)
    ranks[0], ranks[-1] = 0, histogram.num
    return np.diff(ranks.round()).astype(int), edges
