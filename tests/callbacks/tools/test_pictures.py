import torch

from callbacks.tools.layers import min_max
from callbacks.tools.pictures import GREY, enlarge, grid, symmetric


def test_cells_are_laid_out_in_rows_and_columns_and_empty_cells_are_grey() -> None:
    cells = torch.arange(5).view(5, 1, 1, 1).expand(5, 3, 4, 5) / 5
    for columns in (3, None):  # five cells make a square of three columns
        picture = grid(cells, columns, gap=2)
        assert picture.shape == (3, 2 * 6 + 2, 3 * 7 + 2)
        assert picture.dtype == torch.uint8
        assert picture[0, 4::6, 4::7].tolist() == [[0, 51, 102], [153, 204, GREY]]
        assert picture[0, 0].unique().tolist() == picture[0, :, -1].unique().tolist() == [GREY]
    both = grid(torch.stack([cells, 1 - cells]), columns=3)  # two pictures at once
    assert both.equal(torch.stack([grid(cells, columns=3), grid(1 - cells, columns=3)]))


def test_zero_weight_is_grey_and_the_largest_is_white() -> None:
    assert symmetric(torch.tensor([-2.0, 0, 1, 2])).tolist() == [0, 0.5, 0.75, 1]
    assert symmetric(torch.zeros(2)).tolist() == [0.5, 0.5]


def test_each_channel_is_stretched_by_itself() -> None:
    maps = torch.tensor([[[[0.0, 1.0]], [[10.0, 30.0]], [[5.0, 5.0]]]])
    assert min_max(maps).tolist() == [[[[0, 1]], [[0, 1]], [[0, 0]]]]


def test_small_images_are_enlarged_by_whole_pixels() -> None:
    assert enlarge(torch.tensor([[[0, 1]]]), 5).tolist() == [[[0, 0, 0, 1, 1, 1]] * 3]
    assert enlarge(torch.zeros(3, 40, 40), 5).shape == (3, 40, 40)
