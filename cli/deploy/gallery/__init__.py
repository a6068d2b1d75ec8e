"""The commands `gallery ...`: build, change, check and calibrate galleries."""
