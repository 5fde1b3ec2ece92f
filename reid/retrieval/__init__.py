"""From features to numbers: distances, re-ranking, metrics, tuning, submission."""
