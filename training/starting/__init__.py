"""What is opened, checked and taken over before a run's first step."""
