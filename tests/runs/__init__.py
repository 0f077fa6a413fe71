"""Run directories without a model: reader, report, dashboard, watch, study."""
