"""The object store: the S3 client, uploads, and the embedded store."""
