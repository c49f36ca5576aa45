"""Pure signal maths."""
