"""What judgements are worth."""

import pytest

from fairlead.errors import FairleadError
from fairlead.rewards import of_correction, of_label


def test_labels() -> None:
    assert of_label(" Good ") == 1.0
    assert of_label("wrong") == 0.0
    with pytest.raises(FairleadError, match="value in"):
        of_label("meh")


def test_a_correction_is_worth_what_still_stands() -> None:
    assert of_correction("the same", "the same\n") == 1.0
    assert of_correction("abcd", "wxyz") == 0.0
    assert 0.5 < of_correction("the tide follows the moon", "the tide follows the sun") < 1.0
