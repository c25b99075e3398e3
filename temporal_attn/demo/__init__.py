"""``temporal-attn demo``: data, two models, their test, and which frames decided, in some minutes on a CPU."""

from temporal_attn.demo.run import run_demo

__all__ = ["run_demo"]
