"""Which score predicts how removing a layer, a matrix or a head changes the loss of other examples."""
