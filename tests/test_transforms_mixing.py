from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.transforms.mixing import ClipMixing, blend, draw_cutmix_box, paste


def make_batch(size=6, classes=5, num_frames=2, height=12, width=16):
    """Clips of one brightness each, 20 apart."""
    video = (20 * torch.arange(size, dtype=torch.uint8)).view(-1, 1, 1, 1, 1)
    video = video.expand(-1, num_frames, 3, height, width).contiguous()
    return {"video": video, "label": torch.arange(size) % classes, "seed": torch.arange(50, 50 + size)}


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.5, 0.5)])
def test_labels_say_what_the_pictures_hold(mixup, cutmix):
    batch = make_batch()
    mixed = ClipMixing(mixup, cutmix, 1.0, 5)(batch)
    assert mixed["video"].dtype == torch.uint8
    assert mixed["label"].shape == (6, 5)
    assert torch.allclose(mixed["label"].sum(1), torch.ones(6))
    assert ((mixed["lam"] >= 0) & (mixed["lam"] <= 1)).all()
    partners = 0
    for row in range(6):
        lam, own, other = float(mixed["lam"][row]), int(batch["label"][row]), int(mixed["label_b"][row])
        expected = torch.zeros(5)
        expected[own] += lam
        expected[other] += 1 - lam
        assert torch.allclose(mixed["label"][row], expected)
        # the mean brightness says from outside how much there is of which clip
        mean = float(mixed["video"][row].float().mean())
        candidates = [i for i in range(6) if i != row and int(batch["label"][i]) == other]
        assert any(abs(mean - (lam * 20 * row + (1 - lam) * 20 * i)) <= 0.51 for i in candidates)
        assert torch.equal(mixed["video"][row], mixed["video"][row][:1].expand_as(mixed["video"][row]))
        partners += own != other
    assert partners >= 4
    assert torch.equal(batch["video"], make_batch()["video"])  # the batch that came in is untouched


def test_both_kinds_come_and_some_clips_stay():
    batch = make_batch(200)
    batch["video"] = torch.randint(256, batch["video"].shape, generator=torch.Generator().manual_seed(0)).to(
        torch.uint8
    )
    mixed = ClipMixing(1.0, 1.0, 0.6, 5)(batch)
    same = (mixed["video"] == batch["video"]).flatten(1).float().mean(1)
    unmixed = mixed["lam"] == 1
    pasted = ~unmixed & ((same - mixed["lam"]).abs() < 0.03)
    assert 50 < unmixed.sum() < 110
    assert (same[unmixed] == 1).all()
    assert 30 < pasted.sum() < 90
    assert torch.equal(mixed["label"][unmixed].argmax(1), batch["label"][unmixed])
    assert (mixed["label"][unmixed].max(1).values == 1).all()


def test_draws_come_from_the_seeds():
    batch, mixing = make_batch(), ClipMixing(1.0, 1.0, 1.0, 5)
    state = torch.get_rng_state()
    first, again, other = mixing(batch), mixing(batch), mixing({**batch, "seed": batch["seed"] + 10})
    for key in ("video", "label", "label_b", "lam"):
        assert torch.equal(first[key], again[key])
    assert not torch.equal(first["lam"], other["lam"])
    assert torch.equal(torch.get_rng_state(), state)
    assert len(set(first["lam"].tolist())) == 6  # each clip has a share of its own


def test_partners_are_any_of_the_others():
    batch = make_batch(4, classes=4)
    found = {row: set() for row in range(4)}
    for seed in range(80):
        partners = ClipMixing(1.0, 0.0, 1.0, 4)({**batch, "seed": seed * 10 + torch.arange(4)})["label_b"]
        for row, partner in enumerate(partners.tolist()):
            found[row].add(partner)
    assert found == {row: set(range(4)) - {row} for row in range(4)}


def test_a_clip_alone_and_no_clip_at_all():
    alone = ClipMixing(1.0, 1.0, 1.0, 5)(make_batch(1))
    assert torch.equal(alone["video"], make_batch(1)["video"])
    assert alone["label"].tolist() == [[1, 0, 0, 0, 0]]
    empty = {"video": torch.empty(0, 2, 3, 8, 8, dtype=torch.uint8), "seed": torch.empty(0).long()}
    assert ClipMixing(1.0, 0.0, 1.0, 5)({**empty, "label": torch.empty(0).long()})["label"].shape == (0, 5)


def test_labels_of_several_classes_are_mixed_too():
    batch = make_batch(2)
    batch["label"] = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    mixed = ClipMixing(1.0, 0.0, 1.0, 3)(batch)
    lam = mixed["lam"]
    assert torch.allclose(mixed["label"][0], torch.tensor([lam[0], 1.0, 1 - lam[0]]))
    assert torch.equal(mixed["label_b"], batch["label"].flip(0))


def test_the_loss_of_a_soft_label_is_the_mean_of_both_losses():
    mixed = ClipMixing(1.0, 0.0, 1.0, 5)(make_batch())
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    loss = torch.nn.functional.cross_entropy(logits, mixed["label"], label_smoothing=0.1)
    each = [
        torch.nn.functional.cross_entropy(logits, label, label_smoothing=0.1, reduction="none")
        for label in (make_batch()["label"], mixed["label_b"])
    ]
    assert torch.allclose(loss, (mixed["lam"] * each[0] + (1 - mixed["lam"]) * each[1]).mean())


@given(st.integers(1, 60), st.integers(1, 60), st.floats(0, 1), st.integers(0, 2**32))
def test_a_cutmix_box_lies_inside_and_is_at_most_what_was_asked(height, width, share, seed):
    box = draw_cutmix_box(height, width, share, np.random.default_rng(seed))
    assert 0 <= box.top <= box.top + box.height <= height
    assert 0 <= box.left <= box.left + box.width <= width
    assert box.height * box.width <= (1 - share) * height * width + 1e-9
    own, other = torch.zeros(2, 3, height, width, dtype=torch.uint8), torch.ones(2, 3, height, width, dtype=torch.uint8)
    pasted = paste(own, other, box)
    assert (pasted.float().mean((1, 2, 3)) - box.height * box.width / (height * width)).abs().max() < 1e-6


@given(st.floats(0, 1), st.integers(0, 255), st.integers(0, 255))
def test_blending_rounds_to_the_nearest(share, own, other):
    clips = (torch.full((1, 3, 2, 2), value, dtype=torch.uint8) for value in (own, other))
    blended = blend(*clips, share)
    assert blended.dtype == torch.uint8
    assert abs(float(blended[0, 0, 0, 0]) - (share * own + (1 - share) * other)) <= 0.5001
