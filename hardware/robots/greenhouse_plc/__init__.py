"""A greenhouse compartment behind a PLC that speaks Modbus TCP."""
