"""Tracking: a drive or a flight localised frame by frame, with odometry."""
