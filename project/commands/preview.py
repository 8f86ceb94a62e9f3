"""``preview``: draw training images and their augmented versions."""

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse.typing import PositiveInt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from project.commands.light_parser import check_new, numbered

if TYPE_CHECKING:  # torch takes seconds to import
    from datamodules import ImageDataModule


def run(args: list[str]) -> Path:
    """Write the figure and return its path.

    Raises:
        SystemExit: The data cannot be prepared.
    """
    from project.cli.data_options import data_parser, parse_data
    from project.cli.error_handling import report_errors

    with report_errors(["preview", *args]):
        parser = data_parser("preview")
        parser.add_argument("--images", type=PositiveInt, default=8, help="Number of images, one per row.")
        parser.add_argument("--epochs", type=PositiveInt, default=8, help="Number of epochs, one per column.")
        parser.add_argument(
            "--output", type=str | None, default=None, help="A new PNG file. Default: preview.png in data.root."
        )
        data, options = parse_data(parser, args)
        if options.output is not None:
            check_new(Path(options.output))
        data.prepare_data()
        data.setup("fit")
        path = Path(options.output) if options.output is not None else numbered(data.root / "preview.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(data, options.images, options.epochs).savefig(path)
        print(f"Preview: {path}")
        return path


def draw(data: "ImageDataModule", images: int, epochs: int) -> Figure:
    """Return a figure with a training image and its augmented version in each epoch per row."""
    import torch

    from callbacks.tools.fonts import names_in_figures

    loader = data.train_dataloader()
    positions = torch.linspace(0, len(loader.dataset) - 1, images).long().unique()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (data.mean, data.std))
    augmented = [loader.render(positions, epoch)[0] * std + mean for epoch in range(epochs)]
    plain, targets = loader.dataset.load(positions)
    columns = [plain.float() / 255, *(batch.clamp(0, 1) for batch in augmented)]
    names = names_in_figures(data.class_names)

    figure = Figure(
        figsize=(1.1 * len(columns) + 1.2, 1.1 * len(positions) + 0.5),
        layout=ConstrainedLayoutEngine(wspace=0.02, hspace=0.02),
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(positions), len(columns), squeeze=False)
    for column, batch in enumerate(columns):
        axes[0, column].set_title("on disk" if column == 0 else f"epoch {column - 1}", fontsize=9)
        for row, image in enumerate(batch):
            axes[row, column].imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
            axes[row, column].set(xticks=[], yticks=[])
    for row, target in enumerate(targets.tolist()):
        axes[row, 0].set_ylabel(names[target], rotation=0, ha="right", va="center", fontsize=9)
    return figure
