"""The embedded engine: a local model whose keys and values are held once per tree node, sampled with keyed noise."""
