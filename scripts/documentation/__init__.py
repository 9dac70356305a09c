"""What keeps the documentation true: a reference made from the schemas, pages that are run."""
