"""Would the tests notice a slip? Change the code in many small ways, one at a time, and see which changes pass unnoticed.

cosmic-ray finds and makes the changes. What is chosen here: the parts of the code, a seeded sample of each, and the
tests that are asked. Nothing is changed but a copy in a temporary folder. docs/explanation/tests.md has the scores.
"""
