"""What is shown to people: sections as data, one self-contained page that shows them, and tables for the terminal."""
