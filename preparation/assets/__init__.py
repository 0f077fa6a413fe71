"""Small real models, voices and facts from package registries: pinned, checked, converted and kept in one folder."""
