"""Two-stage training: losses, schedules, optimizer groups, the loop."""
