package worker

func confine(memory int64) error { return nil }
