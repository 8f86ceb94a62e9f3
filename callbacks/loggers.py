"""Hand pictures and histograms to every logger that can take them."""

from collections.abc import Iterator

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torchvision.transforms.v2.functional import to_pil_image

from callbacks.gather import Histogram


def log_image(trainer: Trainer, tag: str, image: Tensor) -> None:
    """Log a picture, uint8 ``(3, H, W)``, at the current step."""
    for writer in _tensorboard_writers(trainer):
        writer.add_image(tag, image, trainer.global_step)
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):  # Weights & Biases and others
            logger.log_image(tag, [to_pil_image(image)], step=trainer.global_step)


def log_figure(trainer: Trainer, tag: str, figure: Figure) -> None:
    """Log a Matplotlib figure at the current step."""
    for writer in _tensorboard_writers(trainer):
        writer.add_figure(tag, figure, trainer.global_step, close=False)
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):
            logger.log_image(tag, [figure], step=trainer.global_step)


def log_histogram(trainer: Trainer, tag: str, histogram: Histogram) -> None:
    """Log a histogram at the current step."""
    for writer in _tensorboard_writers(trainer):
        writer.add_histogram_raw(tag, **histogram._asdict(), global_step=trainer.global_step)


def warn_if_blind(trainer: Trainer, callback: object, histograms: bool = False) -> None:
    """Warn once if no logger of the trainer can take the pictures, or ``histograms``, of a callback."""
    if not any(
        isinstance(logger, TensorBoardLogger) or (hasattr(logger, "log_image") and not histograms)
        for logger in trainer.loggers
    ):
        names = ", ".join(type(logger).__name__ for logger in trainer.loggers) or "none"
        rank_zero_warn(
            f"{type(callback).__name__} draws for TensorBoard, but the loggers are: {names}. Nothing of it is logged."
        )


def _tensorboard_writers(trainer: Trainer) -> Iterator[SummaryWriter]:
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            yield logger.experiment
