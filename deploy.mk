# What is deployed: checked without a cluster and without an engine.
IMAGE ?= extauthz:$(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' extauthz/_version.py)

.PHONY: deploy-check image

deploy-check: $(READY)  ## Check the image's steps, manifests, chart, alerts and Envoy configurations
	$(BIN)/python -m pytest -n $(WORKERS) -q tests/deploy tests/envoy/test_deploy.py

image:  ## Build the image (IMAGE names it)
	@command -v docker >/dev/null || { echo "no docker here; any engine builds deploy/Dockerfile"; exit 2; }
	docker build --file deploy/Dockerfile --tag $(IMAGE) .
