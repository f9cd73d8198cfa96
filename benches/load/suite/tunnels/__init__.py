"""S5: tunnels by CONNECT, what each costs to open, to use and to keep."""
