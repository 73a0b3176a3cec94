"""What others read beside the page, one format a file, pure: a page in, bytes out."""
