"""Check the image size for networks whose layers depend on it."""

from lightning.pytorch.utilities.exceptions import MisconfigurationException


def require_image_size(image_size: int | None, network: str) -> int:
    """Return the image size; the module that builds a network sets it if the config does not.

    Raises:
        MisconfigurationException: It is None.
    """
    if image_size is None:
        raise MisconfigurationException(
            f"Expected the side of the images in pixels for {network}, but got none. Set its image_size."
        )
    return image_size
