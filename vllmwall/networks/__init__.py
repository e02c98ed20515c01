"""Lists of networks with sources and ends: peers and bans.

Promises that no failure of a source makes the list of peers wider.
"""
