"""What is wrong with a data set: `run_doctor`, the command ``temporal-attn doctor``."""

from datamodules.doctor.checks import Clip, Inventory, Problem, find_problems
from datamodules.doctor.inventory import take_inventory
from datamodules.doctor.run import run_doctor

__all__ = ["Clip", "Inventory", "Problem", "find_problems", "run_doctor", "take_inventory"]
