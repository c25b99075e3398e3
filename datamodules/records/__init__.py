"""From annotation files and folders to records: pure functions, nothing is decoded.

The disk is scanned once, by `datamodules.files`; everything here works on the names it found. A reader of annotation
files gives a list of `Entry`, `build_catalogue` looks them up and labels them, and `splits` divides what the data set
itself leaves in one piece.
"""

from datamodules.records.catalogue import (
    Account,
    Catalogue,
    Entry,
    build_catalogue,
    choose_classes,
    in_order,
    label_records,
    locate,
    take_account,
)
from datamodules.records.columns import TableColumns, read_video_table
from datamodules.records.diving48 import read_diving48
from datamodules.records.folder import list_folder, read_path_list
from datamodules.records.hmdb51 import parse_hmdb51_name, read_hmdb51_lists
from datamodules.records.jester import read_jester
from datamodules.records.kinetics import read_kinetics
from datamodules.records.mmaction import read_label_map, read_mmaction_list
from datamodules.records.splits import SplitPlan, fold_by_groups, split_by_groups
from datamodules.records.ssv2 import read_ssv2
from datamodules.records.table import RecordTable
from datamodules.records.ucf101 import parse_ucf101_name, read_class_index, read_ucf101_list

__all__ = [
    "Account",
    "Catalogue",
    "Entry",
    "RecordTable",
    "SplitPlan",
    "TableColumns",
    "build_catalogue",
    "choose_classes",
    "fold_by_groups",
    "in_order",
    "label_records",
    "list_folder",
    "locate",
    "parse_hmdb51_name",
    "parse_ucf101_name",
    "read_class_index",
    "read_diving48",
    "read_hmdb51_lists",
    "read_jester",
    "read_kinetics",
    "read_label_map",
    "read_mmaction_list",
    "read_path_list",
    "read_ssv2",
    "read_ucf101_list",
    "read_video_table",
    "split_by_groups",
    "take_account",
]
