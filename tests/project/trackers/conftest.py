import pytest
from tracked import fit_resume_and_test, state


@pytest.fixture(scope="session")
def plain_state(fast: list[str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the state at the end of a resumed run without a tracker."""
    return state(fit_resume_and_test(fast, tmp_path_factory.mktemp("plain")))
