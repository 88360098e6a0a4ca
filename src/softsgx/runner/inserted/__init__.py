"""What is put into a supervised process: addresses, stub, vDSO, mailboxes, doorbell."""
