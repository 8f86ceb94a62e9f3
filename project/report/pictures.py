"""Select and render the images of a run, within a limit on the size of the page."""

from collections.abc import Sequence

from project.report.legend import spread_evenly
from project.report.markup import details, image, paragraph
from project.report.read import Run

LIMIT = 2_000_000  # bytes of all images of a run; 2.7 MB in base64
# kinds that are legible at a reduced width
REDUCED = ("confusion_matrix", "confusion_matrix_normalised", "roc", "gradient_flow", "kernels", "kernels_split")
WIDEST = 620  # maximum width of these kinds, CSS pixels
OPEN, OPEN_KERNELS = 4, 2  # images of a kind that are not collapsed
WHAT = {
    "confusion_matrix": "Confusion matrix, number of images",
    "confusion_matrix_normalised": "Confusion matrix, share of the true class",
    "roc": "Receiver operating characteristic",
    "mistakes": "The most confident mistakes",
    "kernels_colour": "Kernels in colour, a cell for each output channel",
    "kernels": "Kernels, a row for each output channel and a column for each input channel",
    "kernels_split": "Kernels, a block for each output channel",
    "kernels_video": "Kernels during training",
    "feature_maps": "Feature maps, a row for each image",
    "grad_cam": "Grad-CAM: regions that increase the score of the class",
    "occlusion": "Occlusion: change of the prediction by a grey square at each position",
    "gradient_flow": "Gradient flow",
    "training_batch": "A training batch as the network sees it",
}


def kind_of(tag: str) -> str:
    """Return the kind of image from a tag: "kernels" of "kernels/conv1"."""
    return tag.partition("/")[0]


def pictures(run: Run, kinds: Sequence[str]) -> str:
    """Return the images of some kinds: a few of each kind, and the others collapsed."""
    included = _included(run)
    parts = []
    for kind in kinds:
        tags = [tag for tag in run.pictures if kind_of(tag) == kind and tag in included]
        shown = spread_evenly(tags, OPEN_KERNELS if kind.startswith("kernels") else OPEN)
        parts += [f'<div class="pictures">{_images(run, shown)}</div>'] if shown else []
        if folded := [tag for tag in tags if tag not in shown]:
            inner = f'<div class="pictures">{_images(run, folded)}</div>'
            parts.append(details(f"{len(folded)} more of {kind}", inner))
        left = [tag for tag in run.pictures if kind_of(tag) == kind and tag not in included]
        if left:
            words = f"{len(left)} images are only in TensorBoard, to limit the size of this page, such as `{left[0]}`."
            parts.append(paragraph(words, "note"))
    return "".join(parts)


def _included(run: Run) -> set[str]:
    """Return the tags whose images fit into LIMIT; kernels are added last, because each layer has several."""
    included, free = set(), LIMIT
    for tag, picture in sorted(run.pictures.items(), key=lambda item: kind_of(item[0]).startswith("kernels")):
        if len(picture.data) <= free:
            included.add(tag)
            free -= len(picture.data)
    return included


def _images(run: Run, tags: Sequence[str]) -> str:
    return "".join(_image(run, tag) for tag in tags)


def _image(run: Run, tag: str) -> str:
    picture = run.pictures[tag]
    epochs = run.epochs([picture.step - 1])
    when = f"step {picture.step}" + ("" if epochs is None else f", {_time_text(float(epochs[0]))}")
    if tag not in run.events.pictures:
        when = "latest test"
    what = WHAT.get(kind_of(tag), "Picture")
    widest = WIDEST if kind_of(tag) in REDUCED else picture.width
    return image(picture, f"{what}: {tag.partition('/')[2] or tag}, {when}.", f"{tag}, {when}", widest)


def _time_text(epochs: float) -> str:
    """Return the training time in epochs as text: "after 1.5 epochs"."""
    count = f"{epochs:.1f}".removesuffix(".0")
    return f"after {count} epoch{'' if count == '1' else 's'}"
