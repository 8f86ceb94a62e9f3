"""One warning about the media that the loggers of a trainer do not take."""

from collections.abc import Iterable

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn

IN_FILES = ("images", "videos", "histograms")  # media that are also written to the run directory


def warn_of_lost_media(trainer: Trainer, media: Iterable[str]) -> None:
    """Warn once for all callbacks: of media that trackers do not take, or of those that are lost without TensorBoard.

    Args:
        trainer: A trainer. Its loggers may have an attribute ``accepts``: the media that they take.
        media: What the callbacks log.
    """
    if trainer.fast_dev_run:  # type: ignore[attr-defined]  # set elsewhere in Lightning; it logs nothing
        return
    kinds = sorted(set(media))
    loggers = [logger for logger in trainer.loggers if not isinstance(logger, TensorBoardLogger)]
    if len(loggers) == len(trainer.loggers):
        lost = [kind for kind in kinds if kind not in IN_FILES]
        names = ", ".join(type(logger).__name__ for logger in loggers) or "none"
        if lost:
            rank_zero_warn(f"Callbacks log {_listed(lost)} only to TensorBoard, but the loggers are: {names}.")
        return
    refused = []
    for logger in loggers:
        accepted = getattr(logger, "accepts", ["images"] if hasattr(logger, "log_image") else [])
        lost = [kind for kind in kinds if kind not in accepted]
        if lost and not isinstance(logger, CSVLogger):
            refused.append(f"{getattr(logger, 'title', type(logger).__name__)} takes no {_listed(lost)}")
    if refused:
        rank_zero_warn(f"{'; '.join(refused)}. TensorBoard has everything.")


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
