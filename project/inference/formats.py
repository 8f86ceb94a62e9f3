"""Formats of exported classifiers: suffixes and required packages. Imports no torch."""

from importlib.util import find_spec

from project.errors import RunError

SUFFIXES = {"torch_export": ".pt2", "torchscript": ".pt", "onnx": ".onnx"}
# transforms that an exported file includes
INCLUDED = ("ToTensor", "PILToTensor", "ToImage", "ToPureTensor", "ToDtype", "ConvertImageDtype", "Normalize")
PACKAGES = ("onnx", "onnxruntime", "onnxscript")  # the extra `export`


def check_packages() -> None:
    """Raise RunError if a package for ONNX is missing."""
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise RunError(
            f"Expected {', '.join(PACKAGES)} for --format onnx, but found no {', '.join(missing)}. Install with: "
            f"python -m pip install {' '.join(missing)}."
        )
