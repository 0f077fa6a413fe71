"""Tables of the run page and of the study page, and the tests behind their figures."""
