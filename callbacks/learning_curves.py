"""Training and validation in one chart."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from callbacks.base.drawing import DrawingCallback
from callbacks.base.log import LogSnapshot


class LearningCurves(DrawingCallback):
    """Draw what is logged as ``train/<name>`` and as ``val/<name>`` into one chart of TensorBoard's scalars.

    TensorBoard takes each line for a run of its own: folders ``curves_<name>_train`` and ``curves_<name>_val`` appear
    below the run's.

    Tags: ``curves/<name>``, as ``curves/loss`` and ``curves/acc``, in units of what is logged, for each epoch with a
    validation.
    """

    required_media = ("charts of two lines",)

    def __init__(self) -> None:
        super().__init__()
        self._validated = False  # since the last time; metrics of an older validation stay where they are

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = not trainer.sanity_checking

    # train/<name> is known only behind on_train_epoch_end: at the start of the next epoch, or at the end

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer)

    @rank_zero_only
    def _write(self, trainer: Trainer) -> None:
        if not self._validated:
            return
        self._validated = False
        metrics = trainer.callback_metrics
        names = [name.removeprefix("train/") for name in metrics if name.startswith("train/")]
        both = {
            name: {stage: metrics[f"{stage}/{name}"].item() for stage in ("train", "val")}
            for name in names
            if f"val/{name}" in metrics
        }
        if both:  # at once: the first time adds writers to a dictionary that Lightning may just walk through
            self.draw(LogSnapshot(trainer), both)

    def draw(self, log: LogSnapshot, both: dict[str, dict[str, float]]) -> None:
        for writer in log.writers:
            for name, values in both.items():
                writer.add_scalars(f"curves/{name}", values, log.step)
