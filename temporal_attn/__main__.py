"""``python -m temporal_attn``: the same program as ``temporal-attn``."""

from temporal_attn.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
