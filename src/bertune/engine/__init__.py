"""Makes weights better; knows no concrete task."""
