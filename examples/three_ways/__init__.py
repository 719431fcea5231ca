"""One agent, three ways: a LangGraph graph, a plain class of tools, and the tape."""
