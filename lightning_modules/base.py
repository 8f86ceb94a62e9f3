"""The base class of all modules: a network, its optimizer and schedule, and properties of the data."""

import re
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich import print as rich_print
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from lightning_modules.devices import ScaleLR, compare_devices, lr_factor, note_devices, report_step, shard
from lightning_modules.epoch_means import EpochMeans
from lightning_modules.networks.build import build_network, output_shape
from lightning_modules.optim.build import build_optimizer
from lightning_modules.optim.monitors import check_monitors
from lightning_modules.optim.param_groups import ParamGroup, freeze, param_group_table
from lightning_modules.optim.resume_overrides import NewSettings
from lightning_modules.optim.schedulers import GroupSchedules, Interval, build_scheduler
from lightning_modules.weights.initializers import Initializer, initialize, initializer_table
from lightning_modules.weights.pretrained import load_pretrained

WHITENING_IMAGES = 5000  # as in Jordan, 2024, "94% on CIFAR-10 in 3.29 seconds"


class ImageModule(LightningModule):
    """A network with optimizer, schedule and initial weights; subclasses define the training objective.

    ``class_names``, ``mean``, ``std``, ``image_size`` and ``class_counts`` come from the data, never from a config.
    They are saved in the checkpoint, and the command line uses the saved values on other data too. A checkpoint of the
    command line is self-contained: ``load_from_checkpoint(file)``.

    Args:
        network: Class of the network; it is called with the width of its output, and with ``image_size`` if it has an
            argument of that name without a value.
        optimizer: Class of the optimizer.
        class_names: Name of each class.
        mean: Mean of R, G and B with which the data was normalised, on the scale of 0 to 1.
        std: Standard deviation of R, G and B with which the data was normalised, on the scale of 0 to 1.
        image_size: Side of the images in pixels.
        width: First argument of the network: the size of its output, such as the number of classes.
        class_counts: Number of training images of each class.
        lr_scheduler: Class of the schedule. ``ProgressLR``, ``OneCycle`` and torch's ``OneCycleLR`` get ``total_steps``
            from the trainer. The ``max_lr`` of ``OneCycleLR`` and ``CyclicLR`` applies to groups with the optimizer's
            own lr; for other groups it is scaled in proportion. ``ReduceLROnPlateau`` monitors ``val/loss``, or the
            ``monitor`` of lightning.pytorch.cli's class. The learning rate of a param group that a callback adds during
            training changes in proportion to the others.
        scale_lr: Multiply the learning rates of all groups by the number of devices ("linear") or by its square root
            ("sqrt"), because each device adds a batch to a step.
        lr_interval: Step the schedule every "step" or "epoch"; by default the interval that its class is designed for.
        param_groups: Ordered rules for learning rate, weight decay, freezing and so on, by parameter name.
        no_decay: Disable weight decay for one-dimensional parameters: norms and biases.
        layer_decay: Factor on the learning rate from each layer to the one below, whose features are more general. A
            layer is a module with its own weight of two or more dimensions, together with the norms up to the next.
        initializers: Ordered rules for initialising parameters, by layer and name; parameters without a rule keep the
            initialisation of the network's class.
        pretrained: File of weights to start from; see ``load_pretrained``.
        channels_last: Use the NHWC memory format: faster convolutions on most hardware.
        compile: Train with torch.compile: faster steps after the first, which may take a minute.

    Raises:
        MisconfigurationException: The network does not accept images of this size, or the optimizer does not accept its
            parameters.
    """

    def __init__(
        self,
        network: Callable[[int], nn.Module],
        optimizer: OptimizerCallable,
        class_names: list[str],
        mean: list[float],
        std: list[float],
        image_size: int,
        width: int,
        class_counts: list[int] | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        scale_lr: ScaleLR = "none",
        lr_interval: Interval | None = None,
        param_groups: list[ParamGroup] | None = None,
        no_decay: bool = False,
        layer_decay: float | None = None,
        initializers: list[Initializer] | None = None,
        pretrained: str | None = None,
        channels_last: bool = False,
        compile: bool = False,  # noqa: A002  # the name of torch's function
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore="width", logger=False)  # callbacks.Hyperparameters logs them
        self.class_names = class_names
        self.network = build_network(network, width, image_size)
        self.optimizer_class = optimizer
        self.lr_scheduler_class = lr_scheduler
        self.scale_lr: ScaleLR = scale_lr
        self.lr_interval = lr_interval
        self.param_groups = param_groups or []
        self.no_decay = no_decay
        self.layer_decay = layer_decay
        self.initializers = initializers or []
        self.pretrained = pretrained
        self.channels_last = channels_last
        self.use_compile = compile  # nn.Module has a method compile
        self._compiled_network: Callable[[Tensor], Tensor] | None = None
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.example_input_array = torch.zeros(1, 3, image_size, image_size)  # for the model summary
        self.output_shape = output_shape(self.network, self.example_input_array)
        initialize(self.network, self.initializers)
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
        self._log_every = 0
        self._schedules: GroupSchedules | None = None
        self._epoch_means = EpochMeans()
        self._new_settings: NewSettings | None = None
        self._steps_apart = 0  # schedule steps minus optimizer steps, after resuming with another batch size
        self._unfreeze_epochs = freeze(self.network, self.param_groups)
        self._build_optimizer()  # to raise its errors before the data is prepared

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning sets the name of the current hook about 46 times per step, and torch would check each value for
        # parameters; with NoProfiler, this saves 3 to 6 % of LeNet's step on a CPU
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def configure_model(self) -> None:
        """Shard the network if the strategy is ``ModelParallelStrategy``.

        Raises:
            MisconfigurationException: ``compile`` is set, or the strategy uses tensor parallelism.
        """
        if self.device_mesh is not None:
            if self.use_compile:
                raise MisconfigurationException(
                    "Expected --model.compile false with ModelParallelStrategy, because a compiled network would have "
                    "only a part of its weights."
                )
            shard(self.network, self.device_mesh)

    def configure_optimizers(self) -> Any:
        """Build param groups, optimizer and schedule, and print the groups."""
        self._freeze_until(None)
        optimizer = self._build_optimizer()
        self._check_trainer(optimizer)
        factor = lr_factor(self.scale_lr, self.trainer.world_size)
        if factor != 1:
            for group in [*optimizer.param_groups, optimizer.defaults]:
                group["lr"] = group["lr"] * factor
        report_step(self.trainer, self.scale_lr)
        config: dict[str, Any] = {"optimizer": optimizer}
        self._schedules = GroupSchedules(optimizer, self.param_groups, self.trainer)
        if self.lr_scheduler_class is not None:
            config["lr_scheduler"] = build_scheduler(
                self.lr_scheduler_class, optimizer, self.trainer, self.param_groups, self.lr_interval, factor
            )
        if self.trainer.is_global_zero and (len(optimizer.param_groups) > 1 or self.param_groups or factor != 1):
            base_lrs = self._schedules.base_lrs
            table = param_group_table(self.network, self.param_groups, optimizer.param_groups, base_lrs)
            if factor != 1:
                table.title = f"{table.title}, lr times {factor:g}"
            rich_print(table)
        return config

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the number of devices, and the sums for the means of the current epoch."""
        note_devices(self.trainer, checkpoint)
        checkpoint["epoch_means"] = self._epoch_means.state_dict()
        checkpoint["steps_apart"] = self._steps_apart

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the means of the current epoch, and do not load the pretrained weights.

        The checkpoint's weights replace them, and their file may be missing on this machine.
        """
        if self._trainer is not None:  # not in load_from_checkpoint
            compare_devices(self.trainer, checkpoint, new_settings=self._new_settings is not None)
        self._epoch_means.load_state_dict(checkpoint.get("epoch_means", []))
        if self.pretrained is not None:
            rank_zero_info(f"{self.pretrained} is not loaded, because the weights of the checkpoint replace it.")
        self.pretrained = None
        self._steps_apart = checkpoint.get("steps_apart", 0)
        if self._new_settings is not None:
            self._new_settings.take_from(checkpoint)

    def on_fit_start(self) -> None:
        if self._new_settings is not None:
            self._new_settings.keep(self.trainer.optimizers[0])
        if self.trainer.global_rank:  # otherwise dropout would be the same on each device
            torch.manual_seed(torch.initial_seed() + self.trainer.global_rank)
        if self.initializers and self.trainer.is_global_zero and self.trainer.ckpt_path is None:
            rich_print(initializer_table(self.network, self.initializers))
        self._load_pretrained()
        if self.use_compile:
            self._compiled_network = torch.compile(self.network.forward)

    def on_train_start(self) -> None:
        self._epoch_means.begin(self.device, self.global_rank, self.trainer.world_size)
        if self._new_settings is not None:
            self._steps_apart = self._new_settings.apply(self.trainer, self.lr_scheduler_step)
            self._new_settings = None
        self._log_every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set elsewhere in Lightning
        self._freeze_until(self.current_epoch)  # within a resumed epoch, on_train_epoch_start is not called
        self._set_own_schedules()
        whiten = getattr(self.network, "whiten", None)
        if callable(whiten) and not getattr(self.network, "whitened", False):  # a loaded network is already whitened
            whiten(self._training_images(WHITENING_IMAGES))

    def on_train_epoch_start(self) -> None:
        self._freeze_until(self.current_epoch)

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        """Step the schedule for its original groups; groups that were added later change in proportion."""
        step = super().lr_scheduler_step
        if self._schedules is None:
            step(scheduler, metric)
        else:
            self._schedules.step(scheduler.optimizer, lambda: step(scheduler, metric))
        self._set_own_schedules()

    def on_train_batch_end(self, *args: Any) -> None:
        self._set_own_schedules()

    def on_train_epoch_end(self) -> None:
        """Log the means over the epoch of the values passed to ``log_training``."""
        count, means = self._epoch_means.compute()
        for name, mean in means.items():
            self.log_mean(f"train/{name}", mean, count, prog_bar=name == "acc")
        check_monitors(self.trainer, at_epoch_end=True)

    def on_validation_start(self) -> None:
        self._load_pretrained(whole=True)

    def on_test_start(self) -> None:
        self._load_pretrained(whole=True)

    def on_predict_start(self) -> None:
        self._load_pretrained(whole=True)

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's output for normalised images, float ``(N, 3, H, W)``.

        Raises:
            ValueError: The images have an integer dtype, so they are not normalised.
            MisconfigurationException: torch.compile finds no C or C++ compiler.
        """
        if not images.is_floating_point():
            raise ValueError(f"Expected normalised float images, but got {images.dtype}. Call normalize first.")
        images = images.to(self.dtype)  # for precisions such as bf16-true
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        if self.training and self._compiled_network is not None:  # validation and callbacks use the uncompiled network
            try:
                return self._compiled_network(images)
            except RuntimeError as error:
                if (match := re.search(r".*\b(C|C\+\+) compile.*", str(error))) is None:
                    raise
                package, variable = ("gcc", "CC") if match[1] == "C" else ("g++", "CXX")
                raise MisconfigurationException(
                    f"Expected a {match[1]} compiler for --model.compile true, but got: {match[0].strip()}. Install "
                    f"{package}, set {variable} to a compiler, or use --model.compile false."
                ) from error
        return self.network(images)

    # Beyond Lightning's hooks

    def check_files(self) -> None:
        """Check, and load, files that only this class needs for training.

        The command line calls it before a run directory exists.
        """

    @property
    def backbone(self) -> nn.ModuleList:
        """All children with parameters except the last, for lightning.pytorch.callbacks.BackboneFinetuning."""
        return nn.ModuleList([child for child in self.network.children() if list(child.parameters())][:-1])

    def log_training(self, count: int | Tensor, **means: Tensor) -> None:
        """Log ``train/loss_step`` every ``log_every_n_steps``, and collect the values for ``train/<name>`` of the
        epoch.

        Calling ``self.log`` or updating a metric in every step would take longer than a small network's backward pass.

        Args:
            count: Number of images, or of other items that the means are over.
            **means: Scalars without gradient, including ``loss``.
        """
        self._epoch_means.update(count, means)
        if self._log_every and (self.global_step + 1) % self._log_every == 0:
            self.log("train/loss_step", means["loss"], on_step=True, on_epoch=False)

    def take_new_settings(self, forget_moments: bool = False, length_only: bool = False) -> None:
        """Override the checkpoint's optimizer and schedule settings with those of the config when training resumes.

        Args:
            forget_moments: Do not restore the optimizer's state such as momentum, because its class has changed.
            length_only: Only the length of training or the global batch size has changed.
        """
        self._new_settings = NewSettings(forget_moments, length_only)

    def log_mean(self, name: str, mean: Tensor, count: int, prog_bar: bool = False) -> None:
        """Log a mean over ``count`` images, weighted by ``count`` in the mean over all steps and devices."""
        # Lightning divides the sum of counts by the number of devices, and truncates it to an integer
        devices = 1 if self._trainer is None else self.trainer.world_size  # a step may be called without a trainer
        self.log(name, mean, batch_size=count * devices, sync_dist=True, prog_bar=prog_bar)

    def normalize(self, images: Tensor) -> Tensor:
        """Normalise uint8 images ``(N, 3, H, W)`` for the network."""
        return (images.to(self.mean.device) / 255 - self.mean) / self.std

    def denormalize(self, images: Tensor) -> Tensor:
        """Convert normalised images ``(N, 3, H, W)`` to float from 0 to 1."""
        return (images * self.std + self.mean).clamp(0, 1)

    # Helpers

    def _load_pretrained(self, whole: bool = False) -> None:
        """Load the pretrained weights once, after it is known that no checkpoint replaces them."""
        if self.pretrained is not None:
            load_pretrained(self.network, self.pretrained, whole)
            self.pretrained = None

    def _training_images(self, count: int) -> Tensor:
        """Return about ``count`` normalised training images, the same in every process."""
        loader = self.trainer.train_dataloader
        assert loader is not None
        if callable(unaugmented := getattr(loader, "unaugmented", None)):  # without batch augmentation, in full size
            images = unaugmented(count)
        else:
            batches: list[Tensor] = []
            for batch in loader:
                batches.append(batch[0])
                if sum(map(len, batches)) >= count:
                    break
            images = torch.cat(batches)[:count]
        # via the host, or every process would get it on the first process's device
        return self.trainer.strategy.broadcast(images.cpu()).to(self.device)

    def _build_optimizer(self) -> Optimizer:
        rules = (self.param_groups, self.no_decay, self.layer_decay)
        return build_optimizer(self.optimizer_class, self.network, *rules)

    def _check_trainer(self, optimizer: Optimizer) -> None:
        if isinstance(optimizer, LBFGS) and self.trainer.accumulate_grad_batches > 1:
            raise MisconfigurationException(
                "Expected --trainer.accumulate_grad_batches 1 for LBFGS, which computes the gradients of a batch "
                f"several times, but got {self.trainer.accumulate_grad_batches}. Use a larger --data.batch_size."
            )
        late = [name for name, epoch in self._unfreeze_epochs.items() if epoch >= (self.trainer.max_epochs or 0) > 0]
        if late:
            rank_zero_warn(
                f"{len(late)} parameters stay frozen: training ends before their unfreeze_epoch ({', '.join(late)})."
            )
        if self._unfreeze_epochs and self.trainer.world_size > 1:
            raise MisconfigurationException(
                f"Expected one device for unfreeze_epoch of --model.param_groups, but got {self.trainer.world_size}: "
                "gradients of parameters that are unfrozen later would not be averaged. Set --trainer.devices 1."
            )

    def _set_own_schedules(self) -> None:
        if self._schedules is not None:
            self._schedules.set(self.trainer.optimizers[0], self.global_step + self._steps_apart)

    def _freeze_until(self, epoch: int | None) -> None:
        """Freeze the parameters that are trained only after this epoch; unfreeze all if it is None."""
        for name, first in self._unfreeze_epochs.items():
            self.network.get_parameter(name).requires_grad_(epoch is None or epoch >= first)
