import pytest

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
    assert message.startswith("error: Expected a compiler for --model.compile true, but got: ")
    assert "\n" not in message
    assert code == 2
