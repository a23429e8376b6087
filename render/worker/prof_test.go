package worker

import (
	"os"
	"testing"

	"github.com/fairlead-dev/fairlead/render"
)

func BenchmarkEngineOnly(b *testing.B) {
	dir := writeRepository(b, 1000)
	for b.Loop() {
		mustRender(b, render.NewCache(), &render.Engine{}, os.DirFS(dir), "a", nil, 1000)
	}
}

func BenchmarkFloorInProcess(b *testing.B) {
	dir := writeRepository(b, 1000)
	for b.Loop() {
		if err := krustyChild([]string{dir, "0", "1", "200"}); err != nil {
			b.Fatal(err)
		}
	}
}
