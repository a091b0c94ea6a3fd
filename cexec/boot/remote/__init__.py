"""The agent that `cboot` runs on a host: it uses the standard library only and is sent as source text over ssh."""
