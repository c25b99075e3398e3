from __future__ import annotations

import pytest
import torch

from datamodules.transforms.labels import exchange_labels, exchanged_classes
from datamodules.transforms.reversal import TimeReversal
from temporal_attn.types import UserError

NAMES = ["opening", "closing", "clapping", "falling"]


def make_batch(labels=(0, 1, 2, 3), real=(5, 3, 1, 5)):
    """Clips whose pixels show the frame index, 10 frames apart; padding repeats the last real frame."""
    steps = torch.minimum(torch.arange(5), torch.tensor(real)[:, None] - 1)
    frame_index = 10 * steps + torch.arange(len(real))[:, None]
    return {
        "video": frame_index.to(torch.uint8)[:, :, None, None, None].expand(-1, -1, 3, 4, 4).contiguous(),
        "mask": torch.arange(5) < torch.tensor(real)[:, None],
        "pts": frame_index.float() ** 1.5,
        "frame_index": frame_index,
        "label": torch.tensor(labels),
    }


def reverse(batch, draws=(0.0, 0.0, 0.0, 0.0), pairs=(("opening", "closing"),), symmetric=("clapping",)):
    return TimeReversal(0.5, pairs, symmetric, NAMES)(batch, torch.tensor(draws))


def test_clips_run_backwards_with_their_label():
    batch = make_batch()
    after = reverse(batch)
    assert after["label"].tolist() == [1, 0, 2, 3]
    assert after["frame_index"].tolist() == [
        [40, 30, 20, 10, 0],
        [21, 11, 1, 1, 1],
        [2, 2, 2, 2, 2],
        [3, 13, 23, 33, 43],  # nobody said that falling may be reversed
    ]
    shown = after["video"][:, :, 0, 0, 0]
    assert torch.equal(shown.long(), after["frame_index"])
    assert (after["video"] == shown[:, :, None, None, None]).all()
    assert after["mask"] is batch["mask"]


def test_time_goes_on_running_forwards():
    batch = make_batch()
    after = reverse(batch)
    for row, count in enumerate((5, 3, 1)):
        before, own = batch["pts"][row, :count], after["pts"][row, :count]
        assert torch.allclose(own, before[0] + before[-1] - before.flip(0))
        assert torch.allclose(own.diff(), before.diff().flip(0))
        assert (own.diff() > 0).all()
        assert (after["pts"][row, count:] == own[-1]).all()
    assert torch.equal(after["pts"][3], batch["pts"][3])


def test_twice_is_as_before():
    batch = make_batch()
    twice = reverse(reverse(batch))
    for key, value in batch.items():
        assert torch.allclose(twice[key].float(), value.float())


def test_only_those_drawn():
    batch = make_batch()
    after = reverse(batch, draws=(0.5, 0.49, 0.9, 0.0))
    assert after["label"].tolist() == [0, 0, 2, 3]
    assert torch.equal(after["frame_index"][0], batch["frame_index"][0])


def test_all_others_stay_what_they_are():
    after = reverse(make_batch(), symmetric="all")
    assert after["label"].tolist() == [1, 0, 2, 3]
    assert after["frame_index"][3].tolist() == [43, 33, 23, 13, 3]


def test_clips_of_several_classes():
    batch = make_batch()
    batch["label"] = torch.tensor([[1.0, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1]])
    after = reverse(batch)
    assert after["label"].tolist() == [[0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1]]
    assert after["frame_index"][:, 0].tolist() == [40, 21, 2, 3]


def test_clips_of_unknown_class_are_left_alone():
    batch = make_batch(labels=(-1, 0, -1, -1))
    after = reverse(batch, symmetric="all")
    assert after["label"].tolist() == [-1, 1, -1, -1]
    assert torch.equal(after["frame_index"][0], batch["frame_index"][0])


def test_exchanged_labels():
    becomes = exchanged_classes([("closing", "falling")], NAMES, "augment.flip_pairs")
    assert becomes.tolist() == [0, 3, 2, 1]
    assert torch.equal(becomes[becomes], torch.arange(4))
    label = torch.tensor([0, 1, 3, -1, 1])
    where = torch.tensor([True, True, True, True, False])
    assert exchange_labels(label, becomes, where).tolist() == [0, 3, 1, -1, 1]
    rows = torch.eye(4)[[0, 1, 3, 2, 1]]
    assert torch.equal(exchange_labels(rows, becomes, where), torch.eye(4)[[0, 3, 1, 2, 1]])


def test_a_class_that_there_is_not():
    with pytest.raises(UserError, match=r"augment.flip_pairs names jumping; the classes are opening, closing"):
        exchanged_classes([("closing", "jumping")], NAMES, "augment.flip_pairs")
    with pytest.raises(UserError, match=r"augment.reverse_symmetric names jumping"):
        TimeReversal(0.5, (), ("jumping",), NAMES)


def test_the_frames_of_a_pair_change_places():
    batch = make_batch()
    pairs = {**batch, "video": torch.cat((batch["video"], batch["video"] + 100), 2)}
    first, later = reverse(pairs)["video"].split(3, 2)
    own = reverse(batch)["video"]
    assert torch.equal(first, torch.cat((own[:3] + 100, own[3:])))
    assert torch.equal(later, torch.cat((own[:3], own[3:] + 100)))
