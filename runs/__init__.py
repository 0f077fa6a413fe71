"""Run directories, read and written without a model: the directory, its one reader, pages, studies."""
