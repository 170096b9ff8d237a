import pytest
from cpp_programs import BUILD, build


@pytest.fixture(scope="session")
def programs():
    """Folder of the C++ test programs, built from the sources as they are."""
    return build(BUILD)
