"""Operations that encoders and heads use: attention, dropout, linear layers, pooling."""
