package proto

import "github.com/promptmill/promptmill/proto/jsonscan"

// Prompt has the parts of a request's prompt, in the order in which a server's chat template joins
// them: tools and instructions come before all messages. They are JSON as in the body; nil if
// absent.
type Prompt struct {
	Tools, Instructions []byte
	// Text is the value of messages, prompt or input.
	Text []byte
}

// FindPrompt finds the prompt in a request's body, whose memory it shares.
func FindPrompt(scan *jsonscan.Scanner, body []byte) Prompt {
	var p Prompt
	scan.Reset(body)

	for scan.Enter(); scan.Next(); {
		switch string(scan.Name()) {
		case "tools":
			p.Tools = scan.Value()
		case "instructions":
			p.Instructions = scan.Value()
		case "messages", "prompt", "input":
			if text := scan.Value(); len(text) > 0 && text[0] != 'n' { // not null
				p.Text = text
			}
		}
	}

	return p
}
