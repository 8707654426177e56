"""What runs now: the agenda, the shares of the slots, and the scheduler over them."""
