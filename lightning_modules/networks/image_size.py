"""The check of networks whose layers depend on the size of the images."""

from lightning.pytorch.utilities.exceptions import MisconfigurationException


def require_image_size(image_size: int | None, network: str) -> int:
    """Return the image size, which the module that builds a network gives wherever a config leaves it out.

    Raises:
        MisconfigurationException: Nobody gave it.
    """
    if image_size is None:
        raise MisconfigurationException(
            f"Expected the side of the images in pixels for {network}, but got none. Give its image_size."
        )
    return image_size
