package e2e

import "flag"

// torture asks for the long form of every test that has one: go tool task torture.
var torture = flag.Bool("torture", false, "run the long form of the tests")
