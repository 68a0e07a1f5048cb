import numpy as np

from medseg.prepare import coarse


def test_block_means_are_means_and_spreading_them_brings_the_shape_back():
    image = np.arange(5 * 4 * 3, dtype=np.float32).reshape(5, 4, 3)
    blocks = coarse.block_means(image, [2, 2, 1])
    assert blocks.shape == (3, 2, 3)
    assert blocks[0, 0, 0] == image[:2, :2, 0].mean()
    assert blocks[2, 1, 2] == image[4, 2:, 2].mean()
    ramp = np.broadcast_to(np.arange(32, dtype=np.float32)[:, None, None], (32, 6, 5))
    back = coarse.spread_blocks(coarse.block_means(ramp, [4, 2, 2]), [4, 2, 2], ramp.shape)
    assert back.shape == ramp.shape
    np.testing.assert_allclose(back[2:-2], ramp[2:-2], atol=1e-4)


def test_an_opening_drops_what_is_thin_and_the_ends_of_the_volume_are_no_border():
    mask = np.zeros((30, 20, 12), bool)
    mask[5:17] = True  # 12 voxels thick, cut off by four faces of the volume
    mask[22:24] = True
    opened = coarse.opened(mask, 3.0, (1.0, 1.0, 1.0))
    assert opened[6:16].all() and not opened[18:].any()
    assert not coarse.opened(mask, 8.0, (1.0, 1.0, 1.0)).any()


def test_a_closing_fills_gaps_up_to_twice_its_radius():
    mask = np.ones((30, 20, 20), bool)
    mask[10:14] = False
    assert coarse.closed(mask, 3.0, (1.0, 1.0, 1.0)).all()
    assert not coarse.closed(mask, 1.0, (1.0, 1.0, 1.0))[11:13].any()


def test_large_pieces_keep_two_legs_and_drop_a_speck():
    mask = np.zeros((20, 20, 20), bool)
    mask[1:6, :, :], mask[10:14, :, :], mask[18, 3, 3] = True, True, True
    assert coarse.large_pieces(mask, 0.1).sum() == mask.sum() - 1
    assert coarse.large_pieces(mask, 0.9).sum() == mask[1:6].sum()
    assert coarse.largest_piece(mask).sum() == mask[1:6].sum()
    nothing = np.zeros((5, 5, 5), bool)
    assert not coarse.large_pieces(nothing, 0.1).any() and not coarse.largest_piece(nothing).any()
