"""Real servers for the tests of stores: one module each, started where a test first asks."""
