"""Who gets the next pass: shared, cached, admitted, within its deadline."""
