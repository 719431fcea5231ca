"""Three small repositories, each with a failing test, and the logs of a bash agent that did not mend them."""
