package seal

// Tests don't wait for a passphrase to be stretched as far as it should be.
func init() { workFactor = 10 }
