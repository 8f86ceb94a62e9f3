"""Choose the numeric precision that the processor computes fast."""

import torch
from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_info

CPU_FEATURES = ("amx_bf16", "avx512_bf16")  # instructions that multiply bfloat16; those of Arm are not yet measured


def set_precision(config: Namespace) -> None:
    """Set and print ``trainer.precision`` if ``auto_precision`` is true and no precision is given."""
    if config.auto_precision and config.trainer.precision is None:
        feature = fast_bfloat16(str(config.trainer.accelerator))
        config.trainer.precision = "bf16-mixed" if feature else "32-true"
        rank_zero_info(f"Precision: {config.trainer.precision} ({feature or 'no instructions for bfloat16'}).")


def fast_bfloat16(accelerator: str) -> str | None:
    """Return what multiplies bfloat16 fast, the name of the GPU or of the CPU's instructions, or None."""
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name() if torch.cuda.is_bf16_supported(including_emulation=False) else None
    capabilities = torch.cpu.get_capabilities()
    return next((name for name in CPU_FEATURES if capabilities.get(name)), None)
