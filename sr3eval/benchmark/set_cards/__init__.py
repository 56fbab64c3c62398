"""Set cards: which images a test set has, by their hashes, what made its LR images, and whether a folder holds them."""
