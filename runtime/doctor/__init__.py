"""What runs on this machine, and whether it computes exactly; whether a bundle would run here."""
