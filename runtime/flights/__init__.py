"""Records of flights: the text beside a drone's video, and tables of flight logs."""
