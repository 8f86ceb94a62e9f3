"""Write images and histograms to the run directory, and log them with text to TensorBoard and other loggers."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from atomic_files import write_atomically
from callbacks.tools.histogram import Histogram
from callbacks.tools.pictures import add_caption, rendered

NEWEST = 5  # images of a tag that are kept in pictures/; TensorBoard has all
QUANTILES = {"minimum": 0.0, "16%": 0.1587, "median": 0.5, "84%": 0.8413, "maximum": 1.0}  # a standard deviation


class LogSnapshot:
    """The loggers of a trainer with step and epoch at one moment; later changes of the trainer do not affect it.

    Attributes:
        writers: TensorBoard's writers, for media that only TensorBoard supports.
        step: Number of optimizer steps so far; with several optimizers, counted as Lightning does for scalars.
        epoch: Epoch, counted from 1; in ``validate`` and ``test``, that of the checkpoint.
        weights: "averaged weights" if a ``WeightAveraging`` callback has swapped them in, or "trained weights"; empty
            without such a callback.
        folder: Run directory.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.writers = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        self._loggers = trainer.loggers
        self.step = trainer.global_step // max(len(trainer.optimizers), 1)
        self.epoch = trainer.current_epoch + 1
        self.weights = weights_shown(trainer)
        self.folder = Path(trainer.default_root_dir)

    @property
    def moment(self) -> str:
        """Epoch and kind of weights, as text for a caption."""
        return f"epoch {self.epoch}" + (f", {self.weights}" if self.weights else "")

    def image(self, tag: str, image: Tensor, caption: str = "") -> None:
        """Log an image, uint8 ``(3, H, W)``, with a caption, and write it to ``pictures/<tag>/epoch_0003.png``.

        Of each tag, the images of the newest epochs are kept, and those of later epochs are removed: a resumed run
        draws them again. The description in the PNG file is the caption.
        """
        self._write_image(tag, add_caption(image, caption) if caption else image, caption)

    def video(self, tag: str, frames: Sequence[Tensor], frames_per_second: float = 4) -> None:
        """Log images, uint8 ``(3, H, W)``, as an animation, and write it to ``pictures/<tag>.gif``."""
        first, *rest = map(to_pil_image, frames)
        milliseconds = round(1000 / frames_per_second)
        file = self.folder / "pictures" / f"{tag}.gif"
        self._write(tag, file, first, save_all=True, append_images=rest, duration=milliseconds, loop=0)
        self._send("add_video", tag, file)

    def figure(self, tag: str, figure: Figure) -> None:
        """Log a Matplotlib figure as an image; the description in its file is the title."""
        titles = [axes.get_title() for axes in figure.axes]
        self._write_image(tag, rendered(figure), f"{tag}: {next(filter(None, titles), self.moment)}")

    def histogram(self, tag: str, histogram: Histogram) -> None:
        """Log a histogram, and append its quantiles and root mean square to ``distributions.csv``."""
        for writer in self.writers:
            writer.add_histogram_raw(tag, **histogram._asdict(), global_step=self.step)
        self._send("add_histogram", tag, histogram)
        values = [f"{value:.6g}" for value in (histogram.rms, *quantiles(histogram))]
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "distributions.csv").open("a", newline="") as file:
            rows = csv.writer(file)
            if not file.tell():
                rows.writerow(["tag", "epoch", "step", "count", "rms", *QUANTILES])
            rows.writerow([tag, self.epoch, self.step, histogram.num, *values])

    def text(self, tag: str, markdown: str) -> None:
        """Log a text."""
        for writer in self.writers:
            writer.add_text(tag, markdown, self.step)
        self._send("add_text", tag, markdown)

    def _write_image(self, tag: str, image: Tensor, description: str) -> None:
        picture, info = to_pil_image(image), PngInfo()
        info.add_itxt("Description", description)
        file = self.folder / "pictures" / tag / f"epoch_{self.epoch:04}.png"
        self._write(tag, file, picture, pnginfo=info)
        others = sorted(other for other in file.parent.glob("epoch_*.png") if other != file)
        earlier = [other for other in others if other < file]
        for other in [*earlier[: 1 - NEWEST], *others[len(earlier) :]]:
            other.unlink()
        self._send("log_image", tag, [picture])

    def _send(self, method: str, tag: str, value: Any) -> None:
        """Call a method of all trackers, such as Weights & Biases, that have it."""
        for logger in self._loggers:
            if log := getattr(logger, method, None):
                log(tag, value, step=self.step)

    def _write(self, tag: str, file: Path, picture: Image.Image, **options: Any) -> None:
        """Encode a picture once, for a file and for TensorBoard."""
        encoded = io.BytesIO()
        picture.save(encoded, file.suffix[1:], **options)
        file.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(file) as partial:
            partial.write_bytes(encoded.getvalue())
        width, height = picture.size
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded.getvalue())
        for writer in self.writers:
            assert writer.file_writer is not None
            writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), self.step)


def quantiles(histogram: Histogram) -> list[float]:
    """Return the quantiles of a histogram at ``QUANTILES``, assuming that values are uniform within a bucket."""
    limits, counts = np.array(histogram.bucket_limits), np.array(histogram.bucket_counts, float)
    edges = np.clip([histogram.min, *limits], histogram.min, histogram.max)
    below = np.concatenate([[0.0], np.cumsum(counts)])
    filled = counts > 0
    # two points per bucket, because the next bucket may start elsewhere after empty ones are removed
    values = np.stack([edges[:-1][filled], edges[1:][filled]], 1).ravel()
    ranks = np.stack([below[:-1][filled], below[1:][filled]], 1).ravel()
    return np.interp(np.array(list(QUANTILES.values())) * below[-1], ranks, values).tolist()


def write_csv(file: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file atomically."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(file) as partial, partial.open("w", newline="") as lines:
        csv.writer(lines).writerows(rows)


def weights_shown(trainer: Trainer) -> str:
    """Return which weights the module has now, as text; empty without a ``WeightAveraging`` callback."""
    fitting = trainer.state.fn == TrainerFn.FITTING
    if not fitting or not any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks):  # type: ignore[attr-defined]  # set elsewhere in Lightning
        return ""
    return "averaged weights" if trainer.validating else "trained weights"
