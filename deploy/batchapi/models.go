package batchapi

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/promptmill/promptmill/proto"
)

// modelInput has the id of a model.
type modelInput struct {
	ID string `path:"model" doc:"The name of the model. It may have slashes."`
}

// modelOutput has a model.
type modelOutput struct{ Body modelObject }

// listModelsOutput has all models.
type listModelsOutput struct{ Body modelList }

// addModels adds the routes of models.
func (s *server) addModels() {
	addOperation(s, huma.Operation{
		OperationID: "list-models",
		Method:      http.MethodGet,
		Path:        "/v1/models",
		Summary:     "List the models that the workers serve now",
	}, s.listModels)
	addOperation(s, huma.Operation{
		OperationID: "get-model",
		Method:      http.MethodGet,
		Path:        "/v1/models/{model}",
		Summary:     "Get a model",
	}, s.getModel)
}

// listModels lists the models that the workers serve.
func (s *server) listModels(ctx context.Context, _ *struct{}) (*listModelsOutput, error) {
	workers, err := s.Models(ctx)
	if err != nil {
		return nil, err
	}

	return &listModelsOutput{modelList{Object: "list", Data: gatherModels(workers)}}, nil
}

// getModel answers a model.
func (s *server) getModel(ctx context.Context, in *modelInput) (*modelOutput, error) {
	workers, err := s.Models(ctx)
	if err != nil {
		return nil, err
	}

	for _, m := range gatherModels(workers) {
		if m.ID == in.ID {
			return &modelOutput{m}, nil
		}
	}

	return nil, newFailure(http.StatusNotFound, "model", "model_not_found", "No worker serves the model %q now.", in.ID)
}

// gatherModels returns the models of workers, by their names. A worker whose model server does not
// answer has none. Patterns are no models.
func gatherModels(workers []proto.WorkerInfo) []modelObject {
	models := map[string]modelObject{}
	for _, w := range workers {
		if !w.Ready {
			continue
		}

		for _, name := range w.Models {
			m, known := models[name]
			if proto.IsPattern(name) || known && m.Created <= w.Since.Unix() {
				continue
			}

			models[name] = modelObject{
				ID:      name,
				Object:  "model",
				Created: w.Since.Unix(),
				OwnedBy: cmp.Or(strings.ToLower(w.Flavour), "unknown"),
			}
		}
	}

	list := []modelObject{}
	for _, m := range models {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b modelObject) int { return cmp.Compare(a.ID, b.ID) })

	return list
}
