"""Trajectory in, score out."""
