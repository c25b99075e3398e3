"""Spatial transformer: a small net looks at the map, and the map is resampled under the transform that it predicts.

Paper: Jaderberg, Simonyan, Zisserman and Kavukcuoglu, "Spatial Transformer Networks", NeurIPS 2015.
    https://arxiv.org/abs/1506.02025
Equation: θ = loc(x);  (x_s, y_s) = θ (x_t, y_t, 1);  y = Σ_mn x_nm max(0, 1 − |x_s − m|) max(0, 1 − |y_s − n|)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from temporal_attn.attention.gates import check_gate

__all__ = ["Localisation", "SpatialTransformer"]

# What each parameter adds to the six entries of θ, row by row, and the parameters of the identity.
TRANSFORMS = {
    "affine": (torch.eye(6).tolist(), [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
    "similarity": ([[1, 0, 0, 0, 1, 0], [0, -1, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1]], [1.0, 0, 0, 0]),
    "attention": ([[1, 0, 0, 0, 1, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1]], [1.0, 0.0, 0.0]),
}
PADDINGS = ("border", "zeros", "reflection")


class Localisation(nn.Module):
    """Predicts where a map should be looked at: one transform for each map, or for each clip of maps.

    Two convolutions with a pooling to a fixed grid between them, so that maps of any size are taken and the place of
    what was seen is kept, then two linear layers. The last one starts with weight 0 and the identity as its bias.

    Args:
        channels: C of the input.
        hidden: Width of the convolutions and of the hidden linear layer.
        grid: Side in cells of the grid that the map is pooled to.
        transform: ``affine``, ``similarity`` or ``attention``, see `SpatialTransformer`.
        smoothing: Standard deviation in frames of the Gaussian mean over time; None takes the mean of the whole clip.

    Shape:
        input (N, C, H, W), output (N, 2, 3) in float32 (float64 for float64 maps).

    Raises:
        ValueError: A size is not positive, or the transform is not known.
    """

    attention_axes = "transform"

    def __init__(
        self,
        channels: int,
        hidden: int = 32,
        grid: int = 7,
        transform: str = "affine",
        smoothing: float | None = None,
    ) -> None:
        super().__init__()
        if min(channels, hidden, grid) < 1:
            raise ValueError(f"channels, hidden and grid must be positive, got {channels}, {hidden} and {grid}")
        if transform not in TRANSFORMS:
            raise ValueError(f"transform {transform!r} is not known; choose one of: {', '.join(TRANSFORMS)}")
        if smoothing is not None and smoothing <= 0:
            raise ValueError(
                f"smoothing is a standard deviation in frames and must be positive, got {smoothing}; "
                "None gives one transform a clip"
            )
        basis, identity = TRANSFORMS[transform]
        self.transform = transform
        self.smoothing = smoothing
        self.look = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(grid),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(hidden * grid**2, hidden),
            nn.ReLU(inplace=True),
        )
        self.last = nn.Linear(hidden, len(identity))
        self.register_buffer("basis", torch.tensor(basis, dtype=torch.float32), persistent=False)
        nn.init.zeros_(self.last.weight)
        with torch.no_grad():
            self.last.bias.copy_(torch.tensor(identity))

    def forward(self, maps: Tensor, num_frames: int = 1) -> Tensor:
        """Transforms θ (N, 2, 3) of maps (N, C, H, W), of which every `num_frames` in turn are one clip."""
        seen = self.look(maps)
        # Half precision has steps of a fifth of a pixel at 224 pixels, so the transform itself is never rounded to it.
        with torch.autocast(maps.device.type, enabled=False):
            exact = torch.promote_types(maps.dtype, torch.float32)
            parameters = self.last(seen.to(self.last.weight.dtype)).to(exact)
            if num_frames > 1:
                parameters = self._over_time(parameters.unflatten(0, (-1, num_frames))).flatten(0, 1)
            theta: Tensor = (parameters @ self.basis.to(exact)).view(-1, 2, 3)
            if self.transform == "similarity":  # coordinates run from −1 to 1 on both sides, whatever the sides are
                height, width = maps.shape[-2:]
                theta = theta * theta.new_tensor([[1, height / width, 1], [width / height, 1, 1]])
            return theta

    def _over_time(self, parameters: Tensor) -> Tensor:
        """Parameters (B, T, P), averaged over the frames T of each clip."""
        if self.smoothing is None:
            return parameters.mean(1, keepdim=True).expand_as(parameters)
        frames = torch.arange(parameters.shape[1], device=parameters.device, dtype=parameters.dtype)
        weights = torch.softmax(-0.5 * ((frames[:, None] - frames) / self.smoothing) ** 2, dim=1)
        return weights @ parameters

    def attention_weights(self, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """What `attention_maps` shows: θ (N, 2, 3), which says for each place of the output where it is taken from."""
        return output

    def extra_repr(self) -> str:
        """Show the transform when the net is printed."""
        return f"transform={self.transform}, smoothing={self.smoothing}"


class SpatialTransformer(nn.Module):
    """Resamples a map under a transform that a small net predicts from it, so that what follows sees it in one pose.

    Paper: Jaderberg, Simonyan, Zisserman and Kavukcuoglu, "Spatial Transformer Networks", NeurIPS 2015.
        https://arxiv.org/abs/1506.02025

    Equation: θ = loc(x); (x_s, y_s) = θ (x_t, y_t, 1); y = Σ_mn x_nm max(0, 1 − |x_s − m|) max(0, 1 − |y_s − n|)

    Place: once, at the input or after the first stage; never in every block, where the resampling would blur again and
        again. On video give `num_frames` or five-dimensional clips: a transform of its own for each frame would add
        motion that the clip does not have. A learning rate a tenth of the net's keeps the transform from running away.

    Args:
        channels: C of the input.
        hidden: Width of the localisation net.
        grid: Side in cells of the grid that the localisation net pools the map to.
        transform: ``affine`` all six entries of θ, ``similarity`` isotropic scale, rotation and translation,
            ``attention`` isotropic scale and translation.
        num_frames: How many consecutive maps of a four-dimensional batch form a clip. The default takes each map as an
            image of its own; a clip's frames share one transform, or one that is smooth over time. Clips must be full:
            a video model that leaves padding out of the batch needs ``repeat_short`` clips.
        smoothing: None gives one transform a clip; a number gives one a frame, smoothed over time by a Gaussian of that
            standard deviation in frames.
        padding: What lies outside the map: ``border`` its outermost cells, ``zeros`` or ``reflection``.
        gate: ``sigmoid`` y = f(x; θ), the paper, which starts as y = x up to rounding (2·10⁻⁴ at 224 pixels);
            ``residual`` y = x + f(x; θ); ``identity`` y = x + f(x; θ) − f(x; id), which is the paper's form without
            that rounding. A learned γ = 0 in its place would never move: its gradient is ⟨f(x; id) − x, ·⟩ = 0, and
            that of θ is γ · … = 0.

    Shape:
        input (B, C, H, W), or clips (B, T, C, H, W); output the same. Weights: θ (B, 2, 3), one for each map, in
        coordinates from −1 to 1 (x, then y) between the outer edges of the map.

    Raises:
        ValueError: A size is not positive, an option is not known, or a batch does not divide into clips.
    """

    def __init__(
        self,
        channels: int,
        hidden: int = 32,
        grid: int = 7,
        transform: str = "affine",
        num_frames: int = 1,
        smoothing: float | None = None,
        padding: str = "border",
        gate: str = "sigmoid",
    ) -> None:
        super().__init__()
        if num_frames < 1:
            raise ValueError(f"num_frames must be positive, got {num_frames}")
        if padding not in PADDINGS:
            raise ValueError(f"padding {padding!r} is not known; choose one of: {', '.join(PADDINGS)}")
        self.gate = check_gate(gate)
        self.num_frames = num_frames
        self.padding = padding
        self.localisation = Localisation(channels, hidden, grid, transform, smoothing)

    def forward(self, x: Tensor) -> Tensor:
        """Resampled maps (B, C, H, W), or clips (B, T, C, H, W)."""
        maps, num_frames = (x.flatten(0, 1), x.shape[1]) if x.ndim == 5 else (x, self.num_frames)
        if maps.shape[0] % num_frames:
            raise ValueError(
                f"a batch of {maps.shape[0]} maps does not divide into clips of num_frames={num_frames}; "
                "set num_frames to the frames of a clip, or pass clips (B, T, C, H, W)"
            )
        theta = self.localisation(maps, num_frames)
        if maps.shape[0] == 0:  # the sampler refuses to take nothing
            return x
        out = self._sample(maps, theta)
        if self.gate == "residual":
            out = maps + out
        elif self.gate == "identity":
            # The residue f(x; id) − x of the sampler's rounding is a constant, so gradients are those of f(x; θ).
            still = theta.new_tensor([[1, 0, 0], [0, 1, 0]]).expand_as(theta)
            out = maps.detach() + (out - self._sample(maps.detach(), still))
        return out.reshape(x.shape)

    def _sample(self, maps: Tensor, theta: Tensor) -> Tensor:
        """Maps bilinearly sampled at θ, in the memory layout that they came in."""
        with torch.autocast(maps.device.type, enabled=False):
            grid = nn.functional.affine_grid(theta, list(maps.shape), align_corners=False)
            out = nn.functional.grid_sample(
                maps.to(theta.dtype), grid, padding_mode=self.padding, align_corners=False
            ).to(maps.dtype)
        last = maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous()
        return out.contiguous(memory_format=torch.channels_last) if last else out

    def extra_repr(self) -> str:
        """Show what forms a clip, and the gate, when the net is printed."""
        return f"num_frames={self.num_frames}, padding={self.padding}, gate={self.gate}"
