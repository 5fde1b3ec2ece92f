"""From folders of person crops to batches of clips."""
