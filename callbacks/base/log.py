"""Write images and histograms to the run directory, and log them with text to TensorBoard and other loggers."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from atomic_files import write_atomically
from callbacks.tools import warn_once
from callbacks.tools.histogram import QUANTILES, Histogram
from callbacks.tools.pictures import add_caption, rendered

# methods of trackers, and what they take
OF_TRACKERS = {"log_image": "images", "add_video": "videos", "add_histogram": "histograms", "add_text": "texts"}
NEWEST = 5  # images of a tag that are kept in pictures/; TensorBoard has all
COMPRESSION = 1  # of PNG files, from 0 to 9: twice as fast as 6, for 10 to 20 % more bytes


class LogSnapshot:
    """The loggers of a trainer with step and epoch at one moment; later changes of the trainer do not affect it.

    Attributes:
        step: Number of optimizer steps so far; with several optimizers, counted as Lightning does for scalars.
        epoch: Epoch, counted from 1; in ``validate`` and ``test``, that of the checkpoint.
        moment: The epoch, and with a ``WeightAveraging`` callback the kind of weights, as text for a caption.
        folder: Run directory.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._writers = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        loggers = trainer.loggers
        self._trackers = [x for x in loggers if not isinstance(x, TensorBoardLogger) and type(x) is not CSVLogger]
        for tracker in self._trackers:
            if missing := [kind for method, kind in OF_TRACKERS.items() if not hasattr(tracker, method)]:
                name = getattr(tracker, "title", type(tracker).__name__)
                warn_once(f"{name} takes no {', '.join(missing)}. TensorBoard has everything.")
        self.step = trainer.global_step // max(len(trainer.optimizers), 1)
        self.epoch = trainer.current_epoch + 1
        self.moment = f"epoch {self.epoch}"
        fitting = trainer.state.fn == TrainerFn.FITTING
        if fitting and any(isinstance(item, WeightAveraging) for item in trainer.callbacks):  # type: ignore[attr-defined]  # set elsewhere in Lightning
            self.moment += ", averaged weights" if trainer.validating else ", trained weights"
        self.folder = Path(trainer.default_root_dir)
        self._is_trial = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]  # set elsewhere in Lightning; it has no loggers

    @property
    def writers(self) -> list[Any]:
        """TensorBoard's writers, for media that are logged nowhere else."""
        if not self._writers and not self._is_trial:
            warn_once("Without a TensorBoardLogger, graphs, curves, embeddings, HPARAMS and texts are not logged.")
        return self._writers

    def image(self, tag: str, image: Tensor, caption: str = "") -> None:
        """Log an image, uint8 ``(3 or 1, H, W)``, with a caption, and write it to ``pictures/<tag>/epoch_0003.png``.

        Of each tag, the images of the newest epochs are kept, and those of later epochs are removed: a resumed run
        draws them again. The description in the PNG file is the caption.
        """
        self._write_image(tag, add_caption(image, caption) if caption else to_pil_image(image), caption)

    def video(self, tag: str, frames: Sequence[Tensor], captions: Sequence[str]) -> None:
        """Log images, uint8 ``(3, H, W)``, as a video of four per second, and write it to ``pictures/<tag>.gif``."""
        first, *rest = map(add_caption, frames, captions)
        file = self.folder / "pictures" / f"{tag}.gif"
        self._write(tag, file, first, save_all=True, append_images=rest, duration=250, loop=0)
        self._send("add_video", tag, file)

    def figure(self, tag: str, figure: Figure) -> None:
        """Log a Matplotlib figure as an image; the description in its file is the title."""
        titles = [axes.get_title() for axes in figure.axes]
        self._write_image(tag, to_pil_image(rendered(figure)), f"{tag}: {next(filter(None, titles), self.moment)}")

    def histograms(self, histograms: dict[str, Histogram]) -> None:
        """Log histograms by tag, and append their quantiles and root mean squares to ``distributions.csv``."""
        lines = []
        for tag, histogram in histograms.items():
            if histogram.num:
                for writer in self._writers:
                    writer.add_histogram_raw(tag, *histogram[:-1], global_step=self.step)
                self._send("add_histogram", tag, histogram)
                values = [f"{value:.6g}" for value in (histogram.rms, *histogram.quantiles)]
                lines.append([tag, self.epoch, self.step, histogram.num, *values])
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "distributions.csv").open("a", newline="") as file:
            rows = csv.writer(file)
            if lines and not file.tell():
                rows.writerow(["tag", "epoch", "step", "count", "rms", *QUANTILES])
            rows.writerows(lines)

    def text(self, tag: str, markdown: str) -> None:
        for writer in self.writers:
            writer.add_text(tag, markdown, self.step)
        self._send("add_text", tag, markdown)

    def table(self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Write a CSV file to the run directory, with NaN as an empty cell."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with write_atomically(self.folder / name) as partial, partial.open("w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(header)
            lines.writerows(
                [formatted(cell, ".6f") if isinstance(cell, float) else cell for cell in row] for row in rows
            )

    def _write_image(self, tag: str, picture: Image.Image, description: str) -> None:
        info = PngInfo()
        info.add_itxt("Description", description)
        file = self.folder / "pictures" / tag / f"epoch_{self.epoch:04}.png"
        self._write(tag, file, picture, pnginfo=info, compress_level=COMPRESSION)
        files = sorted(file.parent.glob("epoch_*.png"))
        place = files.index(file)
        for other in files[: max(place + 1 - NEWEST, 0)] + files[place + 1 :]:
            other.unlink()
        self._send("log_image", tag, [picture])

    def _send(self, method: str, tag: str, value: Any) -> None:
        """Call a method of all trackers, such as Weights & Biases, that have it."""
        for tracker in self._trackers:
            if log := getattr(tracker, method, None):
                log(tag, value, step=self.step)

    def _write(self, tag: str, file: Path, picture: Image.Image, **options: Any) -> None:
        """Encode a picture once, for a file and for TensorBoard."""
        encoded = io.BytesIO()
        picture.save(encoded, file.suffix[1:], **options)
        file.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(file) as partial:
            partial.write_bytes(encoded.getvalue())
        width, height = picture.size
        content = {"colorspace": len(picture.getbands()), "encoded_image_string": encoded.getvalue()}
        image = Summary.Image(height=height, width=width, **content)
        for writer in self._writers:
            assert writer.file_writer is not None
            writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), self.step)


def formatted(value: float, spec: str) -> str:
    """Return a number as text, "" for NaN."""
    return "" if math.isnan(value) else format(value, spec)
