"""The operations that encoders and heads are made of."""
