"""What tests of several rooms share: tiny models, runs, processes, a stand-in for W&B's server."""
