"""Remove overhead of Lightning and of the C library that a small network would notice in each step."""

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loops import training_epoch_loop
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.trainer import call
from torch import nn

IN_EACH_STEP = {"on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward"}
IN_EACH_STEP |= {"on_before_optimizer_step", "on_train_batch_end"}
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt in glibc's malloc.h
call_hooks = call._call_callback_hooks
has_argument = cache(training_epoch_loop.is_param_in_hook_signature)


class NoProfiler(PassThroughProfiler):
    """Replace Lightning's PassThroughProfiler, which creates a generator about 70 times a step."""

    _nothing = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]  # Lightning's returns a generator
        return self._nothing


def reduce_overhead() -> None:
    """Replace three functions of Lightning, and keep freed memory; calling it again has no effect."""
    keep_freed_memory()
    LightningModule.__setattr__ = set_attribute  # type: ignore[method-assign, assignment]  # on purpose
    call._call_callback_hooks = call_overridden_hooks
    training_epoch_loop.is_param_in_hook_signature = inspect_once  # type: ignore[assignment]  # on purpose


def keep_freed_memory() -> None:
    """Keep freed memory for the next step.

    Otherwise, glibc may return it to the system after each step, depending on what else was allocated, and thousands of
    page faults take a third of the next one. Tensors above 32 MB are always returned: to keep them, too
    (``M_MMAP_MAX`` of 0), made normalising photos 2.7 times as fast, but fragments made the process 4 times as large.
    """
    with suppress(OSError, AttributeError):  # another C library
        for option, size in ((MMAP_THRESHOLD, 2**25), (TRIM_THRESHOLD, 2**31 - 1)):  # the largest that glibc accepts
            ctypes.CDLL(None).mallopt(option, size)


def set_attribute(module: LightningModule, name: str, value: Any) -> None:
    """Set the name of the current hook, which Lightning does 46 times a step, without torch's search for parameters."""
    if name == "_current_fx_name":
        object.__setattr__(module, name, value)
    else:
        nn.Module.__setattr__(module, name, value)


def call_overridden_hooks(trainer: Trainer, hook_name: str, *args: Any, **kwargs: Any) -> None:
    """Call only the hooks of a step that callbacks override; Lightning calls all, 170 for 28 callbacks."""
    if hook_name not in IN_EACH_STEP:
        call_hooks(trainer, hook_name, *args, **kwargs)
        return
    module, empty = trainer.lightning_module, getattr(Callback, hook_name)
    before, module._current_fx_name = module._current_fx_name, hook_name
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set elsewhere in Lightning
        hook = getattr(callback, hook_name)
        if getattr(hook, "__func__", None) is not empty:
            with trainer.profiler.profile(f"[Callback]{callback.state_key}.{hook_name}"):  # type: ignore[attr-defined]  # too
                hook(trainer, module, *args, **kwargs)
    module._current_fx_name = before


def inspect_once(hook: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
    """Return whether ``training_step`` has an argument, which Lightning finds out in every step."""
    return has_argument(getattr(hook, "__func__", hook), *args, **kwargs)
