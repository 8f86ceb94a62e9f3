"""Log images, histograms and text to every logger that supports them."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from weakref import WeakKeyDictionary

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torchvision.transforms.v2.functional import to_pil_image

from atomic_files import write_atomically
from callbacks.tools.histogram import Histogram
from callbacks.tools.pictures import add_caption, boxed


class LogSnapshot:
    """The loggers of a trainer with step and epoch at one moment; later changes of the trainer do not affect it.

    Attributes:
        writers: TensorBoard's writers, for media that only TensorBoard supports.
        step: Number of optimizer steps so far; with several optimizers, counted as Lightning does for scalars.
        epoch: Epoch, counted from 1.
        weights: "averaged weights" if a ``WeightAveraging`` callback has swapped them in, or "trained weights"; empty
            without such a callback.
        folder: Run directory.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.writers = tensorboard_writers(trainer)
        self._others = [logger for logger in trainer.loggers if hasattr(logger, "log_image")]  # Weights & Biases, ...
        self.step = trainer.global_step // max(len(trainer.optimizers), 1)
        self.epoch = trainer.current_epoch + 1
        self.weights = weights_shown(trainer)
        self.folder = Path(trainer.default_root_dir)

    @property
    def moment(self) -> str:
        """Epoch and kind of weights, as text for a caption."""
        return f"epoch {self.epoch}" + (f", {self.weights}" if self.weights else "")

    def image(self, tag: str, image: Tensor, caption: str = "") -> None:
        """Log an image, uint8 ``(3, H, W)``, with a caption."""
        image = add_caption(image, caption) if caption else image
        for writer in self.writers:
            writer.add_image(tag, image, self.step)
        for logger in self._others:
            logger.log_image(tag, [to_pil_image(image)], step=self.step)

    def boxes(self, tag: str, image: Tensor, boxes: Tensor, labels: Sequence[str], caption: str) -> None:
        """Log an image, uint8 ``(3, H, W)``, with boxes ``(N, 4)`` of left, top, right and bottom."""
        self.image(tag, boxed(image, boxes, labels), caption)

    def video(self, tag: str, frames: Sequence[Tensor], frames_per_second: float = 4) -> None:
        """Log images, uint8 ``(3, H, W)``, as an animation, like ``SummaryWriter.add_video``.

        ``SummaryWriter.add_video`` itself needs ``moviepy.editor``, which moviepy 2 removed.
        """
        pictures = [to_pil_image(frame) for frame in frames]
        file = io.BytesIO()
        pictures[0].save(
            file, "GIF", save_all=True, append_images=pictures[1:], duration=round(1000 / frames_per_second), loop=0
        )
        height, width = frames[0].shape[-2:]
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=file.getvalue())
        for writer in self.writers:
            assert writer.file_writer is not None
            writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), self.step)

    def figure(self, tag: str, figure: Figure) -> None:
        """Log a Matplotlib figure."""
        FigureCanvasAgg(figure)
        for writer in self.writers:
            writer.add_figure(tag, figure, self.step, close=False)
        for logger in self._others:
            logger.log_image(tag, [figure], step=self.step)

    def histogram(self, tag: str, histogram: Histogram) -> None:
        """Log a histogram."""
        for writer in self.writers:
            writer.add_histogram_raw(tag, **histogram._asdict(), global_step=self.step)

    def text(self, tag: str, markdown: str) -> None:
        """Log a text."""
        for writer in self.writers:
            writer.add_text(tag, markdown, self.step)


def tensorboard_writers(trainer: Trainer) -> list[SummaryWriter]:
    """Return the writers of all TensorBoard loggers."""
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def write_csv(file: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file atomically."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(file) as partial, partial.open("w", newline="") as lines:
        csv.writer(lines).writerows(rows)


def warn_of_skipped(trainer: Trainer, callback: object, media: Sequence[str]) -> None:
    """Warn if no logger supports a callback, and once for each medium that a logger of images does not support.

    Args:
        trainer: Trainer with the loggers.
        callback: Callback that draws.
        media: Media of the callback: "images", which several loggers support, or others, which only TensorBoard
            supports.
    """
    others = [logger for logger in trainer.loggers if hasattr(logger, "log_image")]
    if any(isinstance(logger, TensorBoardLogger) for logger in trainer.loggers) or (others and "images" in media):
        for logger in others:
            warned = _warned.setdefault(logger, {"images"})
            if new := [kind for kind in media if kind not in warned]:
                warned.update(new)
                rank_zero_warn(
                    f"{type(logger).__name__} does not support {' and '.join(new)}. Only TensorBoard gets them."
                )
    else:
        names = ", ".join(type(logger).__name__ for logger in trainer.loggers) or "none"
        rank_zero_warn(
            f"{type(callback).__name__} needs a TensorBoard logger, but the loggers are: {names}. It logs nothing."
        )


def weights_shown(trainer: Trainer) -> str:
    """Return which weights the module has now, as text; empty without a ``WeightAveraging`` callback."""
    if not any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks):  # type: ignore[attr-defined]  # set elsewhere in Lightning
        return ""
    averaged = trainer.state.fn == TrainerFn.FITTING and trainer.validating
    return "averaged weights" if averaged else "trained weights" if trainer.state.fn == TrainerFn.FITTING else ""


_warned: WeakKeyDictionary[Logger, set[str]] = WeakKeyDictionary()  # media that were warned about, by logger
