"""Does TextBudget hold its budget on text that it never saw, and at what price in speech?"""
