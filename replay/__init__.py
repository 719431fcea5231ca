"""Puts the world back to any recorded step, then plays on from there."""
