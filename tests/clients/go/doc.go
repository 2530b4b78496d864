// Package clients tests the server through Go's Flight SQL clients, as
// applications use them: database/sql with the driver of arrow-go,
// arrow-go's flightsql.Client, and the driver of arrow-adbc. Each test reaches a real `jammi serve`, whose
// binary JAMMI_BIN names.
package clients

// The stubs are generated from /proto, with the protoc that the Python suite
// installs: see `make go-stubs`. A test compares them with what the server serves.
