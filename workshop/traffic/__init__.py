"""Shopper traffic: virtual shoppers with sessions, a steady open-loop rate, and what they saw.

arrivals.py   when a request is due (pure, seeded)
journeys.py   what a shopper does next (generators: a step out, an answer in; no socket)
shopper.py    one shopper: cookies, identity, the current journey
client.py     HTTP/1.1 over asyncio and httptools, light enough to drive and not to disturb
driver.py     the loop that sends what is due and records what came back
record.py     what was seen, added up (pure)
stickiness.py whether a user ever changed sides without cause (pure)
"""
