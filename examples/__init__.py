"""Shipped examples: reached by entry point, never imported by the house."""
