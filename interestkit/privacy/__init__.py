"""What protects the people in a log: names, coarseness, encryption, and how far that reaches.

`interestkit` exports what a notebook needs most; each module is imported when it is first used.
"""
