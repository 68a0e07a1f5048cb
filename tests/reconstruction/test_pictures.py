"""Every pixel of a picture gets its likeliest class, the background included."""

import numpy as np

from medseg.reconstruction.pictures import likeliest, picture_shares


def test_the_likeliest_class_wins_and_the_rest_is_background():
    classes = np.zeros((2, 1, 4, 1), np.float32)
    classes[:, 0, :, 0] = [[0.5, 0.2, 0.3, 0.0], [0.2, 0.5, 0.3, 0.1]]
    labels = likeliest(picture_shares(classes, np.zeros((3, 1, 4, 1), np.float32), ()), (3, 7))
    assert labels[0, :, 0].tolist() == [3, 7, 0, 0]


def test_the_crf_gives_a_speck_to_the_colour_around_it():
    picture = np.zeros((3, 24, 24, 1), np.float32)
    picture[:, :, 12:] = 0.9
    classes = np.zeros((1, 24, 24, 1), np.float32)
    classes[0, :, 12:] = 0.9
    classes[0, 5, 5] = 0.6  # a speck in the dark half
    plain = likeliest(picture_shares(classes, picture, ()), (1,))
    smooth = likeliest(picture_shares(classes, picture, (("crf", {"iterations": 5.0}),)), (1,))
    assert plain[5, 5, 0] == 1
    assert smooth[5, 5, 0] == 0
    assert smooth[12, 18, 0] == 1


def test_borders_are_as_fine_as_the_grid_they_are_brought_to():
    classes = np.zeros((1, 1, 2, 1), np.float32)
    classes[0, 0, :, 0] = [0.1, 0.7]
    shares = picture_shares(classes, np.zeros((3, 1, 2, 1), np.float32), ())

    def finer(share):
        return np.interp(np.linspace(0, 1, 5), [0, 1], share[0, 0, :, 0])[None, None, :, None]

    assert likeliest(shares, (1,), finer)[0, :, 0].tolist() == [0, 0, 0, 1, 1]
