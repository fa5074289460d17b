"""Speed on this machine: networks compiled ahead of time, native attention, and the measurements that choose them."""
