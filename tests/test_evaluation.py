"""What a report warns of beside the scores."""

import pytest

from paligemma_lib.captioner import Captioned
from paligemma_lib.decode import Caption
from paligemma_lib.evaluation import cut_off_told


def captioned(number, *tokens):
    return Captioned(number, f"{number}.jpg", (), Caption("a dog", tokens, (), 0.0))


@pytest.mark.parametrize(("cut", "warned"), [(0, False), (1, False), (2, True), (20, True)])
def test_many_captions_that_are_cut_off_are_told(cut, warned):
    found = cut_off_told(
        [captioned(k, 7, 8, 9) if k < cut else captioned(k, 7, 1) for k in range(20)]
    )
    assert len(found) == warned
    if warned:
        assert f"{cut} of 20 captions ({5 * cut}%) are cut off after 3 tokens" in found[0]
        assert "First: '0.jpg', '1.jpg'" in found[0]
    assert cut_off_told([]) == []
