from __future__ import annotations

from collections import defaultdict

import pytest
from layouts import write_hmdb51

from datamodules import HMDB51DataModule
from datamodules.records import parse_hmdb51_name, read_hmdb51_lists
from temporal_attn.types import UserError


def test_names():
    assert parse_hmdb51_name("Pippi_Michel_cartwheel_f_cm_np2_le_med_6", "cartwheel") == "Pippi_Michel"
    odd = "(Rad)Schlag_die_Bank!_cartwheel_f_cm_np1_le_med_0"
    assert parse_hmdb51_name(odd, "cartwheel") == "(Rad)Schlag_die_Bank!"
    # a source that is called like the class, and a class whose name is the end of another's
    assert parse_hmdb51_name("catch_catch_u_nm_np1_fr_bad_1", "catch") == "catch"
    assert parse_hmdb51_name("A_climb_stairs_u_nm_np1_fr_bad_1", "climb_stairs") == "A"
    for stem, name in (("holiday", "catch"), ("Pippi_cartwheel_f_cm_np2_le_med_6", "catch")):
        with pytest.raises(ValueError, match=f"Pippi_Michel_{name}_f_cm"):
            parse_hmdb51_name(stem, name)


@pytest.mark.shared_data
@pytest.mark.parametrize("fold", [1, 2, 3])
def test_official_lists(shared_data, fold):
    names, parts = read_hmdb51_lists(shared_data / "splits" / "hmdb51", fold)
    assert len(names) == 51
    assert (len(parts["train"]), len(parts["test"])) == (51 * 70, 51 * 30)
    # as the docstring says: never on both sides within a class, 133 to 149 films across classes
    sides = defaultdict(set)
    for part, entries in parts.items():
        for entry in entries:
            sides[entry.group, entry.classes].add(part)
            sides[entry.group].add(part)
    crossing = [key for key, seen in sides.items() if len(seen) > 1]
    assert not [key for key in crossing if isinstance(key, tuple)]
    assert len(crossing) in range(133, 150)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("A_catch_f_cm_np2_le_med_6.avi 3", "expected '<video>.avi <0, 1 or 2>'"),
        ("A_catch_f_cm_np2_le_med_6.avi", "expected '<video>.avi <0, 1 or 2>'"),
        ("../A_catch_f_cm_np2_le_med_6.avi 1", "points outside"),
        ("A_wave_f_cm_np2_le_med_6.avi 1", "is no HMDB51 name"),
        ("B_catch_f_cm_np2_le_med_6.avi 2", "listed twice, first in "),
    ],
)
def test_malformed_lines(tmp_path, line, said):
    path = tmp_path / "catch_test_split1.txt"
    path.write_text(f"B_catch_f_cm_np2_le_med_6.avi 1 \n\n{line}\n")
    with pytest.raises(UserError) as error:
        read_hmdb51_lists(tmp_path, 1)
    assert f"{path}, line 3: " in str(error.value)
    assert said in str(error.value)


def test_clips_marked_0_are_left_out_and_folds_differ(tmp_path):
    options = write_hmdb51(tmp_path)
    data = HMDB51DataModule(**options)
    data.setup("fit")
    assert data.class_names == ["brush_hair", "catch", "ride_bike"]
    assert not [video_id for part in data.catalogue.records.values() for video_id in part.ids if "Unused" in video_id]
    assert data.account.listed == 15
    # the same film gives clips of all classes; they stay together
    assert set(data.catalogue.records["test"].groups) == {"Film_No.5!"}
    assert len(set(data.catalogue.records["val"].groups)) == 1
    with pytest.raises(UserError, match=r"expected files <class>_test_split2.txt, found brush_hair_test_split1.txt"):
        HMDB51DataModule(**options, fold=2).setup("fit")
    with pytest.raises(UserError, match="fold is 4"):
        HMDB51DataModule(**options, fold=4)
