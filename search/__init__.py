"""Pure tree search: no I/O, no clock, no model, no environment."""
