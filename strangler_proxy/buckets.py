"""Which of 10,000 buckets a user falls into, for each group anew.

blake2b with a 64-bit digest of the user's key, keyed with the group's name (BLAKE2's own way to keep uses
apart, RFC 7693 §2.9), modulo 10,000. The canary gets the buckets below percent x 100, so raising a
percentage only adds users and lowering it removes the newest first; all routes of a group share the bucket;
two groups draw independently, so no user is everybody's first guinea pig.

The share of n users is binomial: at 10,000 users and 50 percent one standard deviation is half a point. The
remainder's bias (2**64 mod 10,000) is below 1e-15.
"""

from hashlib import blake2b

from strangler_proxy.table import BUCKETS


def digest_of(group: str, key: bytes) -> int:
    """The user's 64-bit digest within `group`: its bucket, and its opaque name in outcomes."""
    return int.from_bytes(
        blake2b(key, digest_size=8, key=group.encode(), person=b"strangler").digest(), "big"
    )


def bucket_of(digest: int) -> int:
    """0 … 9,999."""
    return digest % BUCKETS


def in_canary(digest: int, threshold: int) -> bool:
    """Does the user belong to the canary at `threshold` buckets (percent x 100)?"""
    return digest % BUCKETS < threshold
