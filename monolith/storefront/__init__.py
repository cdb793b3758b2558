"""What a shopper sees: server-rendered pages on the selectors and services of the other apps.

    urls.py ──► views/        one file a part of the shop; thin: a form in, a selector or service, a page out
                  ├─ listing.py     a list of products, narrowed, sorted and cut into pages
                  ├─ forms.py       what shoppers fill in
                  ├─ selectors.py   reads that only pages need
                  ├─ throttling.py  the API's limits hold for the pages too
                  └─ pages.py       every page ends here: layout, departments, cart badge, security policy

`wording.py` (pure) is how amounts, statuses and countries read. The pages work without JavaScript and ask no
other host; there is no table here, and every write is a service of the app that owns the rows.
"""
