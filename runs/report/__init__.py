"""The page about one or several runs, and the page of a study."""
