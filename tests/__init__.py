"""The tests, in folders that mirror the rooms; what no single room owns lies here."""
