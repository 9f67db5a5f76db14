"""What the tests share: application processes, the programs under test, oracles that recognise a restored state."""
