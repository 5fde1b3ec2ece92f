"""Features of tracklets: extraction by a trained network, and the files that hold them."""
