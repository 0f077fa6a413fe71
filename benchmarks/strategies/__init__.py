"""Every way of teaching speech that the package offers, on one model and one data set, under equal conditions."""
