"""What clients of DeepStack and CodeProject.AI ask: cameras, home automation, recorders."""
