"""The benchmark: cost and speed of the product, compared with its rivals in one run: `make bench`.

One file per part. Each part yields `rows.Row`s. Everything happens in network namespaces of the
lab.
"""
