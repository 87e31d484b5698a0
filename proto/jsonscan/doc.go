// Package jsonscan reads JSON without decoding it. A [Scanner] walks the members of an
// object and returns values as parts of the input, at about 1 GB/s, so that the bodies of
// requests and answers pass through promptmill byte for byte.
//
// It knows nothing of promptmill: package openai reads the answers of model servers with it,
// and package proto the lines of requests and results.
package jsonscan
