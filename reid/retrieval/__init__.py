"""From features to numbers: extraction, re-ranking, metrics."""
