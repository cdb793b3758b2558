"""Demo data: the same seed gives the same shop, row for row.

`words` and `assortment` are the raw material. `catalogue`, `people` and `trade` are pure generators: a random
generator goes in, rows come out. `pictures` draws, `load` writes rows with COPY. The command `seed_shop`
joins them. All times lie before a fixed day, so nothing depends on when the command runs.
"""
