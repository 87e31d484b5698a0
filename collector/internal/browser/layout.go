package browser

// Layout is how a page looks.
type Layout struct {
	Needs, Has int      // the widths that the page needs and has, in pixels
	Clipped    []string // elements that are wider than the page
	Blank      []string // charts in which nothing is drawn
	Charts     int
}

const measureLayout = `(() => {
	const root = document.documentElement
	const clipped = [...document.querySelectorAll("body *")].filter((e) => !e.closest(".plot") && !e.closest("thead") &&
		e.getBoundingClientRect().right > root.clientWidth + 0.5).map((e) => e.outerHTML.slice(0, 80))
	const blank = [...document.querySelectorAll(".plot")].filter((plot) => {
		const canvas = plot.querySelector("canvas")
		if (!canvas) return true
		const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true })
		copy.drawImage(canvas, 0, 0)
		const seen = new Uint32Array(copy.getImageData(0, 0, canvas.width, canvas.height).data.buffer)
		return new Set(seen).size < 4
	}).map((plot) => plot.id)
	return { Needs: root.scrollWidth, Has: root.clientWidth, Clipped: clipped.slice(0, 3), Blank: blank,
		Charts: document.querySelectorAll(".plot").length }
})()`

// MeasureLayout returns how the page looks.
func (b *Tab) MeasureLayout() Layout {
	b.t.Helper()
	return Ask[Layout](b, measureLayout)
}
