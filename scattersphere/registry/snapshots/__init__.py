"""Private copies of the files of bundles: scanned, unpacked, digested, laid out."""
