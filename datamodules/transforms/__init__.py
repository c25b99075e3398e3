"""Augmentation of whole batches on their device: what a clip undergoes depends on its own seed, and on no worker.

All parameters are drawn once a clip and hold for each of its frames. Clips stay uint8; the kernels are torchvision's.
"""

from datamodules.transforms.clip import ClipAugment

__all__ = ["ClipAugment"]
