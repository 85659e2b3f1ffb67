"""What the commands on one model do, from a folder of the user's to another."""
