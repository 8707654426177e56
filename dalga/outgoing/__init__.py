"""POSTs to the endpoint: whose address, whose certificate, and what came of it."""
