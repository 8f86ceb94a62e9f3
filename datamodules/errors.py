"""The error that every step of the data path raises."""


class DataError(Exception):
    """The data is not as expected: the message names the file, what was expected, what came, and the way out."""
