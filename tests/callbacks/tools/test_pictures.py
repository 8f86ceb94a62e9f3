import torch

from callbacks.tools.pictures import BACKGROUND, enlarge, grid, min_max, symmetric, wrap


def test_cells_are_laid_out_in_rows_and_columns() -> None:
    cells = torch.arange(6).view(2, 3, 1, 1, 1).expand(2, 3, 3, 4, 5) / 5
    picture = grid(cells, gap=2)
    assert picture.shape == (3, 2 * 6 + 2, 3 * 7 + 2)
    assert picture.dtype == torch.uint8
    centres = picture[0, 4::6, 4::7]
    assert centres.tolist() == [[0, 51, 102], [153, 204, 255]]
    assert picture[0, 0].unique().tolist() == picture[0, :, -1].unique().tolist() == [round(BACKGROUND * 255)]


def test_cells_are_wrapped_to_a_square() -> None:
    wrapped = wrap(torch.arange(5.0).view(5, 1, 1, 1).expand(5, 3, 1, 1))
    torch.testing.assert_close(wrapped[:, :, 0, 0, 0], torch.tensor([[0, 1, 2], [3, 4, BACKGROUND]]))


def test_zero_weight_is_grey_and_the_largest_is_white() -> None:
    assert symmetric(torch.tensor([-2.0, 0, 1, 2])).tolist() == [0, 0.5, 0.75, 1]
    assert symmetric(torch.zeros(2)).tolist() == [0.5, 0.5]


def test_each_channel_is_stretched_by_itself() -> None:
    maps = torch.tensor([[[[0.0, 1.0]], [[10.0, 30.0]], [[5.0, 5.0]]]])
    assert min_max(maps).tolist() == [[[[0, 1]], [[0, 1]], [[0, 0]]]]


def test_small_images_are_enlarged_by_whole_pixels() -> None:
    assert enlarge(torch.tensor([[[0, 1]]]), 5).tolist() == [[[0, 0, 0, 1, 1, 1]] * 3]
    assert enlarge(torch.zeros(3, 40, 40), 5).shape == (3, 40, 40)
