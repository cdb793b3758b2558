"""PostgreSQL for Django, with connection errors that name the setting at fault."""
