"""What the notebook needs besides the library: the machine it runs on, and views for its cells."""
