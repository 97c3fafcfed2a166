// Command plot draws the series of a report of the benchmarks, each as an SVG
// file of its name.
//
//	plot REPORT.json DIRECTORY
package main

import (
	"errors"
	"fmt"
	"image/color"
	"os"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/mxpipe/mxpipe/bench/report"
)

const width, height = 16 * vg.Centimeter, 9 * vg.Centimeter

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "plot:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: plot REPORT.json DIRECTORY")
	}
	r, err := report.Load(args[0])
	if err != nil {
		return err
	}
	for _, s := range r.Series {
		p, err := drawn(s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		if err := p.Save(width, height, filepath.Join(args[1], s.Name+".svg")); err != nil {
			return err
		}
	}
	return nil
}

// points are a curve with its spread.
type points []report.Point

func (p points) Len() int                            { return len(p) }
func (p points) XY(i int) (x, y float64)             { return p[i].X, p[i].Y }
func (p points) YError(i int) (below, above float64) { return p[i].Y - p[i].Low, p[i].High - p[i].Y }

// drawn makes the plot of a series: medians with the spread of the rounds.
func drawn(s report.Series) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = s.Title, s.X, s.Y
	for _, style := range []*font.Font{&p.Title.TextStyle.Font, &p.X.Label.TextStyle.Font, &p.Y.Label.TextStyle.Font,
		&p.X.Tick.Label.Font, &p.Y.Tick.Label.Font, &p.Legend.TextStyle.Font} {
		style.Variant = "Sans"
	}
	p.BackgroundColor = color.White
	p.Legend.Top, p.Legend.Left = true, true
	p.Y.Min = 0
	if s.LogX {
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, marks(s)
	}
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = color.Gray{220}, color.Gray{220}
	p.Add(grid)
	for i, c := range s.Curves {
		line, dots, err := plotter.NewLinePoints(points(c.Points))
		if err != nil {
			return nil, err
		}
		spread, err := plotter.NewYErrorBars(points(c.Points))
		if err != nil {
			return nil, err
		}
		line.Color, line.Width = plotutil.Color(i), vg.Points(1.5)
		dots.Color, dots.Shape = plotutil.Color(i), draw.CircleGlyph{}
		spread.Color = plotutil.Color(i)
		p.Add(line, dots, spread)
		p.Legend.Add(c.Name, line, dots)
		for _, point := range c.Points {
			p.Y.Max = max(p.Y.Max, 1.15*point.High)
		}
	}
	return p, nil
}

// marks are the places at the X axis where something was measured, which are
// the same for all curves.
func marks(s report.Series) plot.ConstantTicks {
	var ticks plot.ConstantTicks
	if len(s.Curves) > 0 {
		for _, point := range s.Curves[0].Points {
			ticks = append(ticks, plot.Tick{Value: point.X, Label: report.Number(point.X)})
		}
	}
	return ticks
}
