package plan

// Compute returns what is to be done so that what was observed becomes what is desired.
func Compute(d Desired, o Observed, opt Options) Plan {
	return Plan{Application: d.Application}
}
