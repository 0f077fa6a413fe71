"""What costs how much time and memory, and the studies of the documents; for a clone, no part of the package."""
