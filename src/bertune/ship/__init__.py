"""Uses finished weights; knows nothing of how they were made."""
