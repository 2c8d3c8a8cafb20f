"""Whitening learned from matching descriptors, and PCA. Pure numpy.

Each function returns a layer, weight (d, D) and bias (d,) float64, to be followed by L2:
``x ← P (x − m)`` is ``weight = P, bias = −P m``.
"""

from __future__ import annotations

import numpy as np

from retrieval.errors import RetrievalError


def from_groups(
    x: np.ndarray, groups: np.ndarray, dimensions: int, shrinkage: float
) -> tuple[np.ndarray, np.ndarray]:
    """Whitening learned from groups of pictures of the same thing: weight (d, D) and bias (d,).

    x: (n, D) float. groups: (n,) int64, the group of each descriptor. Descriptors with a negative
    number or alone in their group do not count for the covariance within groups.

    Descriptors are multiplied by the inverse square root of the covariance within groups and then
    rotated to the principal axes of all descriptors: Mikolajczyk and Matas, ICCV 2007, and
    Radenović et al., TPAMI 2018, section 3.4, whose groups are pairs. With landmarks as groups it
    is Fisher's linear discriminant analysis.

    dimensions: d. shrinkage: 0 to 1; eigenvalues move that share of the way to their mean (Ledoit
    and Wolf, J. Multivariate Analysis 2004), because pictures are few and dimensions many.
    Raises RetrievalError where no group has two descriptors.
    """
    _, group, counts = np.unique(groups, return_inverse=True, return_counts=True)
    used = (groups >= 0) & (counts[group] > 1)
    sums = np.zeros((len(counts), x.shape[1]))
    np.add.at(sums, group[used], x[used])
    residuals = x[used] - (sums / counts[:, None])[group[used]]
    degrees_of_freedom = int(used.sum()) - len(np.unique(group[used]))
    if not degrees_of_freedom:
        raise RetrievalError(
            "Whitening needs two pictures of the same thing, and no group has two: add pictures."
        )
    values, vectors = np.linalg.eigh(residuals.T @ residuals / degrees_of_freedom)
    values = values.clip(min=0)
    values = (1 - shrinkage) * values + shrinkage * values.mean()
    inverse_root = (vectors * values**-0.5).T
    mean = x.mean(axis=0)
    rotation, _ = pca((x - mean) @ inverse_root.T, dimensions)
    weight = rotation @ inverse_root
    # L2 removes this common factor again; with it the weights fit into half precision.
    weight = weight / np.linalg.norm(weight, axis=1).max()
    return weight, -weight @ mean


def pca(x: np.ndarray, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """PCA of the rows of x (n, D): the first d = ``dimensions`` axes, of largest variance first.

    Returns weight (d, D) and bias (d,).
    """
    _, vectors = np.linalg.eigh(np.cov(x.T.astype(np.float64)))
    weight = vectors[:, ::-1].T[:dimensions]
    return weight, -weight @ x.mean(axis=0)


def pca_whitening(x: np.ndarray, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """``pca``, with every direction divided by its standard deviation: weight (d, D), bias (d,).

    x: (n, D). dimensions: d. Jégou and Chum, ECCV 2012. Raises RetrievalError where a deviation is
    zero.
    """
    weight, _ = pca(x, dimensions)
    mean = x.mean(axis=0)
    deviations = ((x - mean) @ weight.T).std(axis=0)
    if not (deviations > 1e-12).all():
        raise RetrievalError(
            f"The descriptors vary in fewer than {dimensions} directions: use more pictures or "
            "fewer dimensions."
        )
    weight = weight / deviations[:, None]
    return weight, -weight @ mean
