"""Pictures of a run, as many as a page can hold."""

from collections.abc import Sequence

from project.report.legend import spread_evenly
from project.report.markup import details, image, paragraph
from project.report.read import Run

LIMIT = 2_000_000  # bytes of all pictures of a run in a page; base64 makes 2.7 MB of them
# of these kinds a smaller picture tells as much: it is shown so wide at most, in CSS pixels
REDUCED = ("confusion_matrix", "confusion_matrix_normalised", "roc", "gradient_flow", "kernels", "kernels_split")
WIDEST = 620
OPEN, OPEN_KERNELS = 4, 2  # pictures of a kind that are not folded away
WHAT = {
    "confusion_matrix": "Confusion matrix, number of images",
    "confusion_matrix_normalised": "Confusion matrix, share of the true class",
    "roc": "Receiver operating characteristic",
    "mistakes": "The most confident mistakes",
    "kernels_colour": "Kernels in colour, a cell for each output channel",
    "kernels": "Kernels, a row for each output channel and a column for each input channel",
    "kernels_split": "Kernels, a block for each output channel",
    "kernels_video": "Kernels over the training",
    "feature_maps": "Feature maps, a row for each image",
    "grad_cam": "Grad-CAM: where the layer speaks for the class",
    "occlusion": "Occlusion: where a grey square changes the prediction",
    "gradient_flow": "Gradient flow",
    "training_batch": "A training batch as the network sees it",
}


def kind_of(tag: str) -> str:
    """Return the part of a tag that tells what is drawn: "kernels" of "kernels/conv1"."""
    return tag.partition("/")[0]


def pictures(run: Run, kinds: Sequence[str]) -> str:
    """Return pictures of some kinds: of each a few, and the others folded away."""
    kept = _kept(run)
    parts = []
    for kind in kinds:
        tags = [tag for tag in run.pictures if kind_of(tag) == kind and tag in kept]
        shown = spread_evenly(tags, OPEN_KERNELS if kind.startswith("kernels") else OPEN)
        parts += [f'<div class="pictures">{_images(run, shown)}</div>'] if shown else []
        if folded := [tag for tag in tags if tag not in shown]:
            inner = f'<div class="pictures">{_images(run, folded)}</div>'
            parts.append(details(f"{len(folded)} more of {kind}", inner))
        left = [tag for tag in run.pictures if kind_of(tag) == kind and tag not in kept]
        if left:
            words = f"Left out to keep this page small: {len(left)} such as `{left[0]}`; TensorBoard has them."
            parts.append(paragraph(words, "note"))
    return "".join(parts)


def _kept(run: Run) -> set[str]:
    """Return the tags that fit, kernels last, because there are several of each layer."""
    kept, free = set(), LIMIT
    for tag, picture in sorted(run.pictures.items(), key=lambda item: kind_of(item[0]).startswith("kernels")):
        if len(picture.data) <= free:
            kept.add(tag)
            free -= len(picture.data)
    return kept


def _images(run: Run, tags: Sequence[str]) -> str:
    return "".join(_image(run, tag) for tag in tags)


def _image(run: Run, tag: str) -> str:
    picture = run.pictures[tag]
    epochs = run.epochs([picture.step - 1])
    when = f"step {picture.step}" + ("" if epochs is None else f", {_in_words(float(epochs[0]))}")
    if tag not in run.events.pictures:
        when = "latest test"
    what = WHAT.get(kind_of(tag), "Picture")
    widest = WIDEST if kind_of(tag) in REDUCED else picture.width
    return image(picture, f"{what}: {tag.partition('/')[2] or tag}, {when}.", f"{tag}, {when}", widest)


def _in_words(epochs: float) -> str:
    """Return how long training was under way: where an epoch ends, steps do not tell it from the one that begins."""
    count = f"{epochs:.1f}".removesuffix(".0")
    return f"after {count} epoch{'' if count == '1' else 's'}"
