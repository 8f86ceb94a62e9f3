"""The errors that every step of the data path raises."""


class DataError(Exception):
    """The data is not as expected: the message names the file, what was expected, what came, and the way out."""


class ImageError(DataError):
    """A file is no image that can be read.

    Attributes:
        reason: What is wrong with it, without its name and the way out.
    """

    reason = ""
