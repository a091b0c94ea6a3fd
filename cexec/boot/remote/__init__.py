"""What `cboot` runs on a host: standard library only, sent as source text over ssh."""
