"""Sources of proposed actions."""
