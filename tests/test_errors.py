"""What `layercast.errors` says of other libraries' errors."""

import pytest

from layercast.errors import first_line


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no such file\nat line 3"), "no such file"),
        (ValueError("\n  indented\nmore"), "indented"),
        (ValueError(), "ValueError"),
        (OSError("  \n"), "OSError"),
    ],
)
def test_the_first_line_of_an_error_is_what_it_says_or_its_name(error, said):
    assert first_line(error) == said
