"""Shopper traffic: virtual shoppers with sessions, a steady open-loop rate, and what they saw.

arrivals.py   when a request is due (pure, seeded)
journeys.py   what a shopper does next (generators: a step out, an answer in; no socket)
accounts.py   more of them: people who log in, buy, review; staff who change prices
pages.py      more of them: the storefront's pages, link by link
visitors.py   who walks in, with which habits
shopper.py    one shopper: cookies, identity, the current journey
client.py     HTTP/1.1 over asyncio and httptools, light enough to drive and not to disturb
driver.py     the loop that sends what is due and records what came back
record.py     what was seen, added up (pure)
stickiness.py whether a user ever changed sides without cause (pure)
"""
