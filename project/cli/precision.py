"""Choose the numeric precision that the processor computes fast."""

import torch
from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_info

from project.runs.record import processor


def set_precision(config: Namespace) -> None:
    """Set and print ``trainer.precision`` if ``auto_precision`` is true and no precision is given."""
    if config.auto_precision and config.trainer.precision is None:
        feature = fast_bfloat16(str(config.trainer.accelerator))
        config.trainer.precision = "bf16-mixed" if feature else "32-true"
        rank_zero_info(f"Precision: {config.trainer.precision} ({feature or 'bfloat16 is not faster here'}).")


def fast_bfloat16(accelerator: str) -> str | None:
    """Return what computes faster with bfloat16, the name of the GPU or of the CPU's instructions, or None.

    AVX512_BF16 made training images per second of ``airbench_cpu.yaml`` 1.7 times as many on an AMD EPYC, but 0.6 to
    0.9 times as many on an Intel Xeon, which multiplies bfloat16 fast only with AMX. AMX itself and Arm's instructions
    are not yet measured.
    """
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name() if torch.cuda.is_bf16_supported(including_emulation=False) else None
    has = torch.cpu.get_capabilities().get
    if has("amx_bf16"):
        return "amx_bf16"
    return "avx512_bf16" if has("avx512_bf16") and "AMD" in processor()["cpu"] else None
