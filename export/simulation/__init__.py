"""A flight without GNSS through the generated world, in a closed loop with this project."""
