"""Play what a real GPU published through the whole product, with the calls of the recording, against a meter beside it."""
