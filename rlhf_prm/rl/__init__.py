"""TRL trainers with dense step rewards."""
