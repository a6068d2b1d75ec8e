"""Recordings: ROS 2 bags and MCAP files as sources of frames, and MCAP files of what was found."""
