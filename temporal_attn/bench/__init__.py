"""What `temporal-attn bench` measures; each suite compares paired in one run, and says how sure it is."""
