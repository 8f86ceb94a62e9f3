"""Select and render the images of a run, within a limit on the size of the page."""

from collections.abc import Sequence

from project.report.legend import spread_evenly
from project.report.markup import details, image, paragraph
from project.report.read import Run
from project.report.tables import WORDS as STAGES
from project.runs.metrics import circumstances

LIMIT = 2_000_000  # bytes of all images of a run; 2.7 MB in base64
OPEN = 4  # images of a kind that are not collapsed
# captions, with the rest of the tag; pictures with other tags appear under "More pictures and scalars"
WHAT = {
    "confusion_matrix": "Confusion matrix of the {} images",
    "confusion_matrix_normalised": "Confusion matrix of the {} images, share of the true class",
    "roc": "ROC curve of each class against the rest, {} images",
    "mistakes": "Most confident mistakes, {} images",
    "kernels_colour": "Kernels of {}: a cell for each output channel; red, green and blue are the inputs",
    "kernels": "Kernels of {}: a row for each output channel, a column for each input channel; grey is 0",
    "kernels_video": "Kernels of {} during training",
    "feature_maps": "Feature maps of {}: the image, then a column for each channel",
    "grad_cam": "Grad-CAM at {}: red regions increase the score of the class",
    "occlusion": "Occlusion: the grey square that lowers the probability of the true class most",
    "gradient_flow": "Gradient flow",
    "training_batch": "A training batch as the network sees it",
}


def kind_of(tag: str) -> str:
    """Return the kind of image from a tag: "kernels" of "kernels/conv1"."""
    return tag.partition("/")[0]


def pictures(run: Run, kinds: Sequence[str]) -> str:
    """Return the images of some kinds: a few of each kind, and the others collapsed."""
    included = _included(run)
    opened: list[str] = []
    parts = []
    for kind in kinds:
        of_kind = [tag for tag in run.pictures if kind_of(tag) == kind and not _is_repeated(run, tag)]
        tags = [tag for tag in of_kind if tag in included]
        shown = [] if kind in ("kernels", "kernels_video") else spread_evenly(tags, OPEN)
        folded = [tag for tag in tags if tag not in shown]
        opened += shown
        summary = f"{'More' if shown else 'Show'} {kind.replace('_', ' ')} ({len(folded)})"
        parts += [details(summary, _images(run, folded))] if folded else []
        if left := [tag for tag in of_kind if tag not in included]:
            words = f"{len(left)} images are only in TensorBoard, to limit the size of this page, such as `{left[0]}`."
            parts.append(paragraph(words, "note"))
    return (_images(run, opened) if opened else "") + "".join(parts)


def _included(run: Run) -> set[str]:
    """Return the tags whose images fit into LIMIT; kernels are added last, because each layer has several."""
    included, free = set(), LIMIT
    for tag, picture in sorted(run.pictures.items(), key=lambda item: kind_of(item[0]).startswith("kernels")):
        if len(picture.data) <= free and not _is_repeated(run, tag):
            included.add(tag)
            free -= len(picture.data)
    return included


def _is_repeated(run: Run, tag: str) -> bool:
    """Return whether another image has the same kernels."""
    kind, _, layer = tag.partition("/")
    return kind == "kernels_split" or (kind == "kernels" and f"kernels_colour/{layer}" in run.pictures)


def _images(run: Run, tags: Sequence[str]) -> str:
    return f'<div class="pictures">{"".join(_image(run, tag) for tag in tags)}</div>'


def _image(run: Run, tag: str) -> str:
    picture, (kind, _, name) = run.pictures[tag], tag.partition("/")
    epochs = run.epochs([picture.step - 1])
    when = f"step {picture.step}" if epochs is None else _time_text(float(epochs[0]))
    if tag not in run.events.pictures and run.test is not None:
        epoch = circumstances(run.test.folder).epoch
        when = "latest test" if epoch is None else f"weights of epoch {epoch}"
    what = WHAT[kind].format(STAGES.get(name, name)) if kind in WHAT else tag
    return image(picture, f"{what}, {when}")


def _time_text(epochs: float) -> str:
    """Return the training time in epochs as text: "after 1.5 epochs"."""
    count = f"{epochs:.1f}".removesuffix(".0")
    return f"after {count} epoch{'' if count == '1' else 's'}"
