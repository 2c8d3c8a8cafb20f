"""Losses against cirtorch's values, and by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from retrieval.training import losses

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "cirtorch.npz"
with_reference = pytest.mark.skipif(not REFERENCE.exists(), reason="no reference values here")


@with_reference
@pytest.mark.parametrize(
    ("loss", "margin", "key"),
    [(losses.contrastive, 0.85, "contrastive_085"), (losses.triplet, 0.5, "triplet_05")],
)
def test_loss_and_gradient_of_cirtorch(loss, margin, key):
    reference = np.load(REFERENCE)
    x = torch.from_numpy(reference["loss_x"]).requires_grad_()
    value = loss(x, torch.from_numpy(reference["loss_labels"]), margin)
    value.backward()
    assert value.item() == pytest.approx(float(reference[key]), rel=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), reference[f"{key}_grad"], atol=1e-5)


def test_contrastive_by_hand():
    # Distances from the query: positive 3, negatives 0.6 (inside the margin) and 2 (outside).
    x = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 0.6], [2.0, 0.0]])
    value = losses.contrastive(x, torch.tensor([-1, 1, 0, 0]), margin=1.0, eps=0.0)
    assert value.item() == pytest.approx(0.5 * (9 + 0.4**2))


def test_triplet_by_hand():
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.5], [2.0, 0.0]])
    value = losses.triplet(x, torch.tensor([-1, 1, 0, 0]), margin=0.5)
    assert value.item() == pytest.approx(1 - 0.25 + 0.5)  # the second is far enough
    two = losses.triplet(torch.cat([x, x]), torch.tensor([-1, 1, 0, 0] * 2), margin=0.5)
    assert two.item() == pytest.approx(2 * value.item())


def test_equal_descriptors_have_a_finite_gradient():
    x = torch.zeros(3, 4, requires_grad=True)
    losses.contrastive(x, torch.tensor([-1, 1, 0])).backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("labels", [[], [0, 1, -1], [-1, 1], [-1, 1, 0, -1, 1], [-1, 1, 1]])
@pytest.mark.parametrize("loss", [losses.contrastive, losses.triplet])
def test_batches_of_another_form_are_refused(loss, labels):
    with pytest.raises(ValueError, match="tuple"):
        loss(torch.zeros(len(labels), 2), torch.tensor(labels))
