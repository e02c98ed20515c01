"""What the product costs and how fast it is, beside its rivals, in one run: `make bench`.

One file a part; each part yields `rows.Row`s. Everything happens in network namespaces of the
lab's own.
"""
