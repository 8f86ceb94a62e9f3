import os

import pytest
from kill_prepare import main


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork to start processes quickly")
def test_killed_at_any_moment_or_started_twice_the_result_is_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rounds", "10", "--images", "60"]) == 0
    out = capsys.readouterr().out
    assert "10 rounds" in out
    assert out.count(": 0 results differ") == 3
