"""One object: preflight, reserve, meter, settle."""
