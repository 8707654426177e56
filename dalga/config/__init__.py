"""The configuration: a file and the environment -> one frozen `Config`. Pure."""
