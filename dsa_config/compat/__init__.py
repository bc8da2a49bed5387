"""Settings under the interfaces that other projects' code is written for."""
