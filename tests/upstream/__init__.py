"""`make upstream`: what the newest releases open, mount and accept that our tables do not know."""
