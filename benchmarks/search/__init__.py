"""Search algorithms on toy problems with known optima, ours beside peers and plain baselines, at equal transitions."""
