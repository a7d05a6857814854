"""Option files: YAML, overrides, validation, JSON schema and reference."""
