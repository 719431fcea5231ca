"""Worlds that execute actions and return observations."""
