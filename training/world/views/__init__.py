"""What a camera sees of a scene: from above, from the street, and looking straight down from a drone."""
