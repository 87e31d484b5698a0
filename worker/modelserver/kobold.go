package modelserver

// kobold is KoboldCpp. It answers what Ollama does, and must not be taken for it.
type kobold struct{ openAI }

var koboldSpec = flavourSpec{
	newFlavour: func() flavour { return kobold{} },
	owner:      "koboldcpp", // koboldcpp.py
}

func (kobold) name() string { return "KoboldCpp" }
