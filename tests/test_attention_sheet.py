"""Pictures of attention: what lies where, and which colour stands for which weight."""

from __future__ import annotations

import numpy as np
import pytest

from temporal_attn.attention_sheet import (
    CELL,
    Row,
    bar_row,
    channel_row,
    draw_sheet,
    frame_row,
    heat,
    place_row,
    quadrilateral_row,
)

FRAMES = [np.full((60, 80, 3), shade, np.uint8) for shade in (40, 200)]


def lightness(colours: np.ndarray) -> np.ndarray:
    return colours @ np.array([0.2126, 0.7152, 0.0722])


def test_more_weight_is_lighter() -> None:
    colours = heat(np.linspace(-1, 3, 100), -1, 3)
    assert colours.shape == (100, 3)
    assert (np.diff(lightness(colours)) > 0).all()
    # and outside of the scale nothing wraps around
    np.testing.assert_array_equal(heat(np.array([-9.0, 9.0]), -1, 3), colours[[0, -1]])


def test_equal_weights_have_one_colour_in_the_middle() -> None:
    colours = heat(np.full((3, 3), 0.5), 0.5, 0.5)
    assert len(np.unique(colours.reshape(-1, 3), axis=0)) == 1
    assert 20 < lightness(colours[0, 0]) < 200


def test_places_share_one_scale_over_frames() -> None:
    weights = np.zeros((2, 4, 4))
    weights[0, 0, 0], weights[1, 3, 3] = 0.5, 1.0
    row = place_row("gate", [FRAMES[0], FRAMES[0]], weights)
    assert row.scale == (0.0, 1.0)
    first, second = (lightness(cell.astype(float)) for cell in row.cells)
    assert np.unravel_index(first.argmax(), first.shape) < (CELL // 4, CELL // 4)
    assert second[-1, -1] > first[0, 0] > first[-1, -1]
    assert second[-1, -1] == second.max()


def test_channels_keep_their_square() -> None:
    weights = np.zeros((2, 50))
    weights[0, 7] = weights[1, 7] = 1
    row = channel_row("gate", weights)
    square = CELL // 10  # 50 channels in 10 columns
    for cell in row.cells:
        bright = np.argwhere(lightness(cell[: 5 * square].astype(float)) > 240)
        assert bright.min(0).tolist() == [0, 7 * square]
        assert bright.max(0).tolist() == [square - 1, 8 * square - 1]


def test_bars_are_as_high_as_their_share() -> None:
    row = bar_row("frames", [0.25, 0.75])
    blue = [(cell == (37, 99, 235)).all(-1).sum() for cell in row.cells]
    assert blue[0] * 3 == pytest.approx(blue[1], rel=0.05)


def test_the_outline_is_that_of_the_transform() -> None:
    half = np.array([[0.5, 0, 0.5], [0, 0.5, 0.5]])  # looks at the lower right quarter
    row = quadrilateral_row("stn", FRAMES, np.stack([half, half]))
    drawn = np.argwhere((row.cells[0] == (250, 178, 50)).all(-1))
    height = row.cells[0].shape[0]
    assert drawn.min(0) == pytest.approx([height / 2, CELL / 2], abs=3)
    assert drawn.max(0) == pytest.approx([height, CELL], abs=3)


def test_a_sheet_holds_its_rows_below_each_other() -> None:
    rows = [frame_row(FRAMES, ["0.00 s", "1.00 s"]), bar_row("frames", [0.5, 0.5])]
    sheet = np.asarray(draw_sheet("a heading" * 100, "a note", rows))
    assert sheet.shape[1] < 700  # too long a heading is cut and does not widen the picture
    left = sheet.shape[1] - 20 - 2 * (CELL + 6)
    column = sheet[:, left + CELL // 2]
    frame, bar = np.argwhere((column == 40).all(-1)), np.argwhere((column == (37, 99, 235)).all(-1))
    assert len(frame) == 120  # 60 × 80 pixels drawn 160 wide
    assert frame.max() < bar.min()


def test_a_row_with_colours_says_its_scale() -> None:
    plain = draw_sheet("", "", [Row("a", "b", [FRAMES[0]])])
    scaled = draw_sheet("", "", [Row("a", "b", [FRAMES[0]], (0.0, 2.0))])
    assert np.asarray(plain)[:, :180].std() < np.asarray(scaled)[:, :180].std()


def test_long_names_do_not_run_into_the_pictures() -> None:
    name = "encoder_layers_encoder_layer_11.attention.channel_gate"
    rows = [channel_row(name, np.eye(2)), channel_row("next", np.eye(2))]
    sheet = np.asarray(draw_sheet("heading", "note", rows))
    edge = 20 + 176  # margin and label
    first = sheet[84 : 84 + 160, edge - 4 : edge]  # white between the label and the first cell
    assert (first == 255).all()
    short = draw_sheet("heading", "note", [channel_row("gate", np.eye(2)), channel_row("next", np.eye(2))])
    assert sheet.shape[0] > short.height  # nor does the label run into the next row
