"""What threads share: mailboxes, buffers, fair locks, rates, names."""
