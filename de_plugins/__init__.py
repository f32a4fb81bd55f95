"""What is built in, written against the public names of ``de_core`` only, as a stranger would write it."""
