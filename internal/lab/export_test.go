package lab

// For tests.
var (
	AccountHash = accountHash
	SplitTXT    = splitTXT
)
