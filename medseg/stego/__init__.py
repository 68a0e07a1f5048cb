"""This stage distils frozen features into codes that cluster: STEGO (Hamilton et al., ICLR 2022).

Words: *features* are the frozen teaching signal, *codes* what the head learns, a *prototype* is the centre of a
*cluster*. A *correspondence* is the cosine between two points, of features or of codes. The loss has three terms:
`self` (a patch with itself), `knn` (with one of its nearest neighbours) and `random` (with other patches of the batch).
"""
