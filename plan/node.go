package plan

// Node describes a machine with a Docker engine.
type Node struct {
	ID NodeID `json:"id"`
	// EngineName and EngineVersion are the engine's own words; APIVersion is what was negotiated.
	EngineName    string `json:"engineName,omitempty"`
	EngineVersion string `json:"engineVersion,omitempty"`
	APIVersion    string `json:"apiVersion,omitempty"`
	CPUs          int    `json:"cpus,omitempty"`
	MemoryBytes   int64  `json:"memoryBytes,omitempty"`
	CgroupV2      bool   `json:"cgroupV2,omitempty"`
}
