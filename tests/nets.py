"""Small nets of every family that attention goes into, of timm and torchvision: untrained, but nothing is zero."""

from __future__ import annotations

from collections.abc import Callable

import timm
import torch
from timm.layers import BatchNormAct2d
from timm.models import convnext, deit, densenet, eva, regnet, resnet, resnetv2, swin_transformer, vision_transformer
from torch import Tensor, nn
from torchvision import models as tv
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.efficientnet import MBConvConfig
from torchvision.models.regnet import BlockParams

VIT = {"patch_size": 8, "embed_dim": 16, "depth": 5, "num_heads": 2, "num_classes": 5}
WINDOWS = {"embed_dim": 16, "depths": (1, 2), "num_heads": (2, 2), "num_classes": 5}
SMALL = {"layers": (1, 1, 2, 1), "num_classes": 5}

NETS: dict[str, Callable[[], nn.Module]] = {
    "timm resnet": lambda: timm.create_model("test_resnet", num_classes=5),
    "timm resnext": lambda: resnet.ResNet(resnet.Bottleneck, **SMALL, channels=(8, 8, 16, 16), cardinality=4),
    "timm wide resnet": lambda: resnet.ResNet(resnet.Bottleneck, **SMALL, channels=(4, 4, 8, 8), base_width=128),
    "timm resnetv2": lambda: resnetv2.ResNetV2(**SMALL, channels=(8, 8, 16, 16), stem_chs=8, norm_layer=BatchNormAct2d),
    "timm densenet": lambda: densenet.DenseNet(growth_rate=4, block_config=(1, 2, 1), num_classes=5),
    "timm efficientnet": lambda: timm.create_model("test_efficientnet", num_classes=5),
    "timm mobilenetv2": lambda: timm.create_model("mobilenetv2_035", num_classes=5),
    "timm mobilenetv3": lambda: timm.create_model("mobilenetv3_small_050", num_classes=5),
    "timm convnext": lambda: timm.create_model("test_convnext", num_classes=5),
    "timm convnext of maps": lambda: convnext.ConvNeXt(
        depths=(1, 2, 1, 1), dims=(8, 16, 16, 16), conv_mlp=True, num_classes=5
    ),
    "timm regnet": lambda: regnet.RegNet(
        regnet.RegNetCfg(depth=6, w0=8, wa=8.0, wm=2.0, group_size=8, se_ratio=0.25), num_classes=5
    ),
    "timm vit": lambda: vision_transformer.VisionTransformer((32, 48), **VIT, reg_tokens=2),
    "timm vit without class token": lambda: vision_transformer.VisionTransformer(
        32, **VIT, class_token=False, global_pool="avg"
    ),
    "timm deit": lambda: deit.VisionTransformerDistilled(32, **VIT),
    "timm eva": lambda: eva.Eva(32, **VIT),
    "timm swin": lambda: swin_transformer.SwinTransformer(64, window_size=2, **WINDOWS),
    "tv resnet": lambda: tv.ResNet(tv.resnet.BasicBlock, [1, 1, 2, 1], num_classes=5),
    "tv densenet": lambda: tv.DenseNet(growth_rate=4, block_config=(1, 2, 1), num_init_features=8, num_classes=5),
    "tv efficientnet": lambda: tv.EfficientNet(
        [MBConvConfig(1, 3, 1, 8, 8, 1, 1, 1), MBConvConfig(4, 3, 2, 8, 16, 2, 1, 1)], 0.2, num_classes=5
    ),
    "tv mobilenetv2": lambda: tv.MobileNetV2(5, width_mult=0.5),
    "tv mobilenetv3": lambda: tv.mobilenet_v3_small(weights=None, num_classes=5, width_mult=0.5),
    "tv convnext": lambda: tv.ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 2)], num_classes=5),
    "tv regnet": lambda: tv.RegNet(
        BlockParams([1, 1, 2, 1], [8, 16, 16, 24], [8] * 4, [1.0] * 4, [2] * 4, se_ratio=0.25), num_classes=5
    ),
    "tv vit": lambda: tv.VisionTransformer(32, 8, num_layers=5, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5),
    "tv swin": lambda: tv.SwinTransformer([4, 4], 16, [1, 2], [2, 2], [2, 2], num_classes=5),
}


def make(name: str) -> nn.Module:
    """The net in evaluation mode, with parameters and statistics as of one that saw data."""
    torch.manual_seed(0)
    net = NETS[name]()
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)  # transformers start with weights that hardly do anything
        for norm in norms:
            nn.init.uniform_(norm.weight, 0.5, 1.5)  # timm starts the last one of a branch at zero
            norm.momentum = 1.0
        for key, parameter in net.named_parameters():
            if not parameter.any() or key.endswith(("gamma", "layer_scale")):
                parameter.normal_(0, 0.3)
        net.train()(images(name, 4, seed=0))
    for norm in norms:
        norm.momentum = 0.1
    return net.eval()


def images(name: str, number: int = 2, seed: int = 3) -> Tensor:
    """Images of a size that the net takes."""
    sides = {"timm vit": (32, 48), **dict.fromkeys(("timm vit without class token", "timm deit", "timm eva"), (32, 32))}
    side = {**sides, "tv vit": (32, 32)}.get(name, (64, 64))
    return torch.randn(number, 3, *side, generator=torch.Generator().manual_seed(seed))


def disturb(net: nn.Module) -> None:
    """Attention that does something: no gate stays at its start."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "frame_attention" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.3)


def hooks(net: nn.Module) -> list[object]:
    modules = list(net.modules())
    return [hook for m in modules for hook in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())
