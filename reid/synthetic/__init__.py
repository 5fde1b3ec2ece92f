"""The embedded benchmark: rendered people in the DetReIDX layout, and tiny CLIPs to start from."""
