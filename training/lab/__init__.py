"""What is made of finished runs: tables of experiments, report pages, means over seeds; training never imports it."""
