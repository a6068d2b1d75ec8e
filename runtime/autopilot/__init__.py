"""Autopilots: positions sent by MAVLink, and attitude and velocity taken from the same link."""
