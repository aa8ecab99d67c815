"""Pretrained folders to encoders: token ids in, states out."""
