"""The ROS 2 node of geodtr-export."""
