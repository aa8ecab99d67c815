"""Files to ragged batches."""
