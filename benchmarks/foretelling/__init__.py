"""Which score foretells what the removal of a layer, a matrix or a head does to the loss of other examples."""
