"""What the evaluation suite can measure; each is a class named in YAML."""
