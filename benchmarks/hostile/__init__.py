"""What the measurement of stalls is made of: tenants, senders, cases and watches."""
