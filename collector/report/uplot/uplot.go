// Package uplot is uPlot, the chart library in the browser: its script and its style, to be
// put into a page that asks the network for nothing. The files are those of the npm package
// uplot, as they were published; https://github.com/leeoniya/uPlot has the sources.
package uplot

import _ "embed"

// Version is the version of uPlot.
const Version = "1.6.32"

// Script defines the global uPlot. It holds no "</script", so that it may stand in a page.
//
//go:embed uPlot.iife.min.js
var Script string

// Style is the style sheet that Script needs.
//
//go:embed uPlot.min.css
var Style string

// License is the MIT licence of uPlot, whose text must go with copies of it.
//
//go:embed LICENSE
var License string
