"""What the shop sells: a tree of categories, products with pictures, and what shoppers think of them.

Reading needs the tables of this app alone; even a review carries its author's name.
"""
