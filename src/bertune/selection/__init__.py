"""Finding good settings: training without a folder, folds, search."""
