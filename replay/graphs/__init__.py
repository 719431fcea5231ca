"""LangGraph graphs as agents and as worlds: finding their parts, running a node of them, counting their model calls."""
