package modelserver

// kobold is KoboldCpp. It answers the paths of Ollama, and must not be taken for it.
type kobold struct{ openAI }

var koboldSpec = flavourSpec{
	newFlavour: func() flavour { return kobold{} },
	owner:      "koboldcpp", // koboldcpp.py
}

func (kobold) name() string { return "KoboldCpp" }
