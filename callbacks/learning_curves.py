"""Training and validation curves in one chart."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from callbacks.base.drawing import DrawingCallback
from callbacks.base.log import LogSnapshot


class LearningCurves(DrawingCallback):
    """Draw the metrics ``train/<name>`` and ``val/<name>`` in one chart of TensorBoard's scalars.

    TensorBoard treats each line as a separate run, in the folders ``curves_<name>_train`` and ``curves_<name>_val`` of
    the run directory.

    Tags: ``curves/<name>``, such as ``curves/loss`` and ``curves/acc``, in the units of the metric, for each epoch with
    a validation.
    """

    required_media = ("charts of two lines",)

    def __init__(self) -> None:
        super().__init__()
        self._validated = False  # since the last write, because callback_metrics keeps metrics of earlier validations

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = not trainer.sanity_checking

    # train/<name> is available only after on_train_epoch_end: at the start of the next epoch, or at the end of training

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
        if both:  # create the writers now, because Lightning may be iterating over their dictionary later
            self.draw(LogSnapshot(trainer), both)

    def draw(self, log: LogSnapshot, both: dict[str, dict[str, float]]) -> None:
        for writer in log.writers:
            for name, values in both.items():
                writer.add_scalars(f"curves/{name}", values, log.step)
