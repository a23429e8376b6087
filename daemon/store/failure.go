package store

import "time"

// Attempt is a revision that is being applied and has neither succeeded nor failed yet.
type Attempt struct {
	Revision string `json:"revision"`
	// Content identifies what the revision says of the application, and How what else is declared about applying it.
	Content string `json:"content"`
	How     string `json:"how"`
	// Back is true when it is the last good revision, to which the application goes back.
	Back bool `json:"back,omitempty"`
	// Since is when it was begun.
	Since time.Time `json:"since"`
}

// Failure is a revision that failed. It is remembered until another one is applied. It is never modified.
type Failure struct {
	Revision string `json:"revision"`
	// Content and How are those of the Attempt.
	Content string `json:"content"`
	How     string `json:"how"`
	// At is when it failed, Reason why in one CamelCase word, and Message in a sentence, with the last log lines.
	At      time.Time `json:"at"`
	Reason  string    `json:"reason"`
	Message string    `json:"message,omitempty"`
	// Back is the revision that the application went back to, or is going to; empty while it does neither. BackAt is when
	// it was there; zero before.
	Back   string    `json:"back,omitempty"`
	BackAt time.Time `json:"backAt,omitzero"`
	// BackReason and BackMessage say why going back failed; empty when it did not.
	BackReason  string `json:"backReason,omitempty"`
	BackMessage string `json:"backMessage,omitempty"`
}
