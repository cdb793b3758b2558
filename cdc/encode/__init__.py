"""From changes to what others read. Pure."""
