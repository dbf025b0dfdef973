"""Options become a domain: tables of rows, one module per subject, and the report."""
