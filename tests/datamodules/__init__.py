"""From a line of a manifest to a batch."""
