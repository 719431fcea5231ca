"""Month-end bookkeeping: an environment, imperfect agents, verifiers and logs."""
