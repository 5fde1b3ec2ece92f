"""Two-stage training: losses, schedules, optimiser groups, the loop."""
