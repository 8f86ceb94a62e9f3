"""``preview``: draw training images and their augmented versions."""

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse.typing import PositiveInt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from project.commands.light_parser import check_new, numbered

if TYPE_CHECKING:  # torch takes seconds to import
    from lightning.pytorch import LightningDataModule


def run(args: list[str]) -> Path:
    """Write the figure and return its path.

    Raises:
        SystemExit: The data cannot be prepared.
    """
    from datamodules import ImageDataModule
    from project.cli.data_options import data_parser, parse_data
    from project.cli.error_handling import report_errors

    with report_errors(["preview", *args]):
        parser = data_parser("preview")
        parser.add_argument("--images", type=PositiveInt, default=8, help="Number of images, one per row.")
        parser.add_argument("--epochs", type=PositiveInt, default=8, help="Number of epochs, one per column.")
        parser.add_argument(
            "--output", type=str | None, help="A new PNG file. Default: preview.png in the data folder."
        )
        data, options = parse_data(parser, args)
        folder = data.folder.path if isinstance(data, ImageDataModule) else Path()
        path = numbered(folder / "preview.png") if options.output is None else Path(options.output)
        check_new(path)
        data.prepare_data()
        data.setup("fit")
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(data, options.images, options.epochs).savefig(path)
        print(f"Preview: {path}")
        return path


def draw(data: "LightningDataModule", images: int, epochs: int) -> Figure:
    """Return a figure with a training image and its augmented version in each epoch per row.

    For a DataModule that is no ImageDataModule, it shows the first images of each epoch.
    """
    import torch

    from callbacks.tools.fonts import names_in_figures
    from callbacks.tools.layers import as_rgb
    from datamodules import ImageDataModule

    loader = data.train_dataloader()
    mean, std = (torch.tensor(getattr(data, name)).view(-1, 1, 1) for name in ("mean", "std"))
    if isinstance(data, ImageDataModule):
        positions = torch.linspace(0, len(loader.dataset) - 1, images).long().unique()
        batches = [loader.render(positions, epoch)[0] for epoch in range(epochs)]
        plain, targets = loader.dataset.load(positions)
        columns = {"on disk": plain.float() / 255}
        class_names = names_in_figures(data.class_names)
        names = [class_names[target] for target in targets.tolist()]
    else:
        batches = [next(iter(loader))[0][:images] for _ in range(epochs)]
        columns, names = {}, [""] * len(batches[0])
    columns |= {f"epoch {epoch}": (batch.cpu() * std + mean).clamp(0, 1) for epoch, batch in enumerate(batches)}

    figure = Figure(figsize=(1.1 * len(columns) + 1.2, 1.1 * len(names) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(names), len(columns), squeeze=False)
    for column, (title, batch) in enumerate(columns.items()):
        axes[0, column].set_title(title, fontsize=9)
        for row, image in enumerate(as_rgb(batch)):
            axes[row, column].imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
            axes[row, column].set(xticks=[], yticks=[])
    for row, name in enumerate(names):
        axes[row, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    return figure
