// Package daemon puts the stages together: sources, render, plan, apply and the runtimes of the
// local node. It is the only package that knows two stages.
package daemon
