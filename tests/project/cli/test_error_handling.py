import pytest

from datamodules import DataError
from project.cli.error_handling import message_of


@pytest.mark.parametrize(
    "text",
    [
        "backend='inductor' raised:\nInvalidCxxCompiler: No working C++ compiler found: (None, 'g++')\n\nSet ...",
        "Failed to find C compiler. Please specify via CC environment variable.",
    ],
)
def test_missing_compiler_is_reported_in_one_line(text: str) -> None:
    message, code = message_of(RuntimeError(text), ["fit"])
    assert message.endswith("Install gcc and g++, or use --model.compile false.")
    assert "\n" not in message
    assert code == 2


def test_the_reason_of_an_error_in_a_worker_is_one_line() -> None:
    """torch adds the traceback of the worker to the message."""
    reason = "Caught DataError in DataLoader worker process 0.\nTraceback (most recent call last):\n  File ...\n"
    error = DataError(f"{reason}datamodules.errors.DataError: cat/1.png is not a readable image.")
    assert message_of(error, ["fit"]) == ("error: cat/1.png is not a readable image.", 2)
