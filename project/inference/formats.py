"""Formats of exported classifiers: suffixes, required packages, and code to load them. Imports no torch."""

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


LOADING_CODE = {
    "torch_export": """\
extra = {{"class_names": ""}}
model = torch.export.load({path!r}, extra_files=extra).module()
class_names = json.loads(extra["class_names"])""",
    "torchscript": """\
extra = {{"class_names": ""}}
model = torch.jit.load({path!r}, _extra_files=extra)
class_names = json.loads(extra["class_names"])""",
    "onnx": """\
model = onnxruntime.InferenceSession({path!r})
class_names = json.loads(model.get_modelmeta().custom_metadata_map["class_names"])""",
}
