"""The object store: S3, uploads, and the embedded store."""
